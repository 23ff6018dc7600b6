/* Rules and destinations while an engine runs, from C.
 *
 *   test_rules SCRATCH-DIRECTORY
 *
 * Prints a line per check, then `N passed, M failed`. Nothing has to listen anywhere.
 */
#include <stdint.h>
#include <stdlib.h>

#include "check.h"

static char text[65536];

/* What a call has answered as text, which it frees. */
static const char *taken(tidewire_result_t result, char *json, size_t len) {
  text[0] = 0;
  if (result == TIDEWIRE_OK && json && strlen(json) == len && len < sizeof text) memcpy(text, json, len + 1);
  tidewire_string_free(json);
  return text;
}

static const char *rules(tidewire_engine_t *engine) {
  char *json = NULL;
  size_t len = 0;
  tidewire_result_t result = tidewire_rules_json(engine, &json, &len, NULL);
  return taken(result, json, len);
}

static const char *rule(tidewire_engine_t *engine, const char *bucket, const char *id) {
  char *json = NULL;
  size_t len = 0;
  tidewire_result_t result = tidewire_rule_json(engine, tidewire_str(bucket), tidewire_str(id), &json, &len, NULL);
  return taken(result, json, len);
}

static const char *destinations(tidewire_engine_t *engine) {
  char *json = NULL;
  size_t len = 0;
  tidewire_result_t result = tidewire_destinations_json(engine, &json, &len, NULL);
  return taken(result, json, len);
}

static const char *destination(tidewire_engine_t *engine, const char *name) {
  char *json = NULL;
  size_t len = 0;
  tidewire_result_t result = tidewire_destination_json(engine, tidewire_str(name), &json, &len, NULL);
  return taken(result, json, len);
}

static int has(const char *in, const char *part) {
  int ok = strstr(in, part) != NULL;
  if (!ok) printf("     %s\n     lacks %s\n", in, part);
  return ok;
}

#define PUT(rule, expect, version) tidewire_rule_put(engine, tidewire_str(rule), expect, version, &err)

static void test_put_rules(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_outcome_t outcome = 9;
  uint64_t first = 0, second = 0;
  tidewire_event_t event = event_of("new", "in/a");

  CHECK("rule: nobody wants the bucket", tidewire_publish(engine, &event, NULL, &outcome, NULL) == TIDEWIRE_OK && outcome == TIDEWIRE_OUTCOME_NO_MATCH);
  const char *json = "{\"id\": \"r\", \"bucket\": \"new\", \"events\": [\"s3:ObjectCreated:*\"], \"prefix\": \"in/\", \"destinations\": [\"hook\"]}";
  CHECK("rule: put", is(PUT(json, TIDEWIRE_EXPECT_ABSENT, &first), &err, TIDEWIRE_OK, "") && first > 0);
  CHECK("rule: it is in force", tidewire_publish(engine, &event, NULL, &outcome, NULL) == TIDEWIRE_OK && outcome == TIDEWIRE_OUTCOME_ACCEPTED);
  CHECK("rule: put where there is to be none", is(PUT(json, TIDEWIRE_EXPECT_ABSENT, NULL), &err, TIDEWIRE_CONFLICT, ""));
  const char *toml =
      "[[rule]]\nid = \"r\"\nbucket = \"new\"\nevents = [\"s3:ObjectRemoved:*\"]\ndestinations = [\"hook\"]\n";
  CHECK("rule: put as the configuration has it, by its version", is(PUT(toml, first, &second), &err, TIDEWIRE_OK, "") && second > first);
  CHECK("rule: an old version", is(PUT(toml, first, NULL), &err, TIDEWIRE_CONFLICT, ""));
  CHECK("rule: the events of before are wanted no more", tidewire_publish(engine, &event, NULL, &outcome, NULL) == TIDEWIRE_OK && outcome == TIDEWIRE_OUTCOME_NO_MATCH);
  CHECK("rule: it is told", has(rule(engine, "new", "r"), "\"owner\":\"callers\"") && has(text, "\"s3:ObjectRemoved:*\""));
  CHECK("rule: so is one of the configuration", has(rule(engine, "b", "created"), "\"owner\":\"configuration\""));
  CHECK("rule: all are told", has(rules(engine), "\"id\":\"r\"") && has(text, "\"id\":\"created\"") && has(text, "\"version\":"));
  char *none = (char *)&err;
  CHECK("rule: one that is not there",
        is(tidewire_rule_json(engine, tidewire_str("new"), tidewire_str("x"), &none, NULL, &err), &err, TIDEWIRE_NOT_FOUND, "x") && none == NULL);
  CHECK("rule: what was put can be put again", has(rule(engine, "new", "r"), "{\"inactive\":null"));

  CHECK("rule: a wrong key is told with its line",
        is(PUT("[[rule]]\nid = \"r\"\nevents = [\"*\"]\ndestination = [\"hook\"]\n", 0, NULL), &err, TIDEWIRE_INVALID_CONFIG, "rule:4:1"));
  CHECK("rule: no such destination",
        is(PUT("{\"id\": \"q\", \"events\": [\"*\"], \"destinations\": [\"nowhere\"]}", 0, NULL), &err, TIDEWIRE_INVALID_CONFIG, "nowhere"));
  CHECK("rule: no JSON", is(PUT("{\"id\": ", 0, NULL), &err, TIDEWIRE_INVALID_CONFIG, "JSON"));
  CHECK("rule: null in JSON", is(PUT("{\"id\": null}", 0, NULL), &err, TIDEWIRE_INVALID_CONFIG, ""));
  CHECK("rule: two", is(PUT("[[rule]]\nid = \"a\"\nevents = [\"*\"]\ndestinations = [\"hook\"]\n[[rule]]\nid = \"b\"\nevents = [\"*\"]\ndestinations = [\"hook\"]\n", 0, NULL), &err, TIDEWIRE_INVALID_CONFIG, "one [[rule]]"));
  CHECK("rule: none", is(PUT("", 0, NULL), &err, TIDEWIRE_INVALID_CONFIG, "one [[rule]]"));
  CHECK("rule: the configuration's", is(PUT("{\"id\": \"created\", \"bucket\": \"b\", \"events\": [\"*\"], \"destinations\": [\"hook\"]}", 0, NULL), &err, TIDEWIRE_CONFLICT, ""));
  CHECK("rule: text NULL", is(tidewire_rule_put(engine, tidewire_bytes(NULL, 3), 0, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "rule is NULL"));
  CHECK("rule: huge", is(tidewire_rule_put(engine, tidewire_bytes("x", SIZE_MAX), 0, NULL, &err), &err, TIDEWIRE_INVALID_CONFIG, "rule has"));
  CHECK("rule: engine NULL", is(tidewire_rule_put(NULL, tidewire_str(json), 0, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));

  CHECK("rule: deleted by an old version",
        is(tidewire_rule_delete(engine, tidewire_str("new"), tidewire_str("r"), first, &err), &err, TIDEWIRE_CONFLICT, ""));
  CHECK("rule: deleted", is(tidewire_rule_delete(engine, tidewire_str("new"), tidewire_str("r"), second, &err), &err, TIDEWIRE_OK, ""));
  CHECK("rule: deleted twice", is(tidewire_rule_delete(engine, tidewire_str("new"), tidewire_str("r"), 0, &err), &err, TIDEWIRE_NOT_FOUND, ""));
  CHECK("rule: of every bucket",
        is(PUT("{\"id\": \"all\", \"events\": [\"s3:ObjectCreated:*\"], \"destinations\": [\"hook\"]}", 0, NULL), &err, TIDEWIRE_OK, "") &&
            tidewire_publish(engine, &event, NULL, &outcome, NULL) == TIDEWIRE_OK && outcome == TIDEWIRE_OUTCOME_ACCEPTED &&
            is(tidewire_rule_delete(engine, tidewire_str(""), tidewire_str("all"), 0, &err), &err, TIDEWIRE_OK, ""));
}

static void test_destinations(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  uint64_t version = 0;
  const tidewire_bytes_t empty = tidewire_bytes(NULL, 0);
  const char *json = "{\"name\": \"d\", \"type\": \"webhook\", \"url\": \"http://127.0.0.1:9/d\", "
                     "\"auth\": {\"scheme\": \"standard-webhooks\", \"secret\": \"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"}}";
#define PUT_D(text, expect, waiting, to) \
  tidewire_destination_put(engine, tidewire_str(text), expect, waiting, to, &version, &err)
  CHECK("destination: put", is(PUT_D(json, TIDEWIRE_EXPECT_ABSENT, TIDEWIRE_BACKLOG_KEEP, empty), &err, TIDEWIRE_OK, "") && version > 0);
  CHECK("destination: put where there is to be none", is(PUT_D(json, TIDEWIRE_EXPECT_ABSENT, TIDEWIRE_BACKLOG_KEEP, empty), &err, TIDEWIRE_CONFLICT, ""));
  CHECK("destination: all are told, without secrets",
        has(destinations(engine), "\"name\":\"d\"") && has(text, "\"name\":\"hook\"") && !strstr(text, "whsec_"));
  CHECK("destination: the configuration's",
        is(PUT_D("{\"name\": \"hook\", \"type\": \"webhook\", \"url\": \"http://127.0.0.1:9/\"}", 0, TIDEWIRE_BACKLOG_KEEP, empty), &err, TIDEWIRE_CONFLICT, ""));
  CHECK("destination: a wrong key", is(PUT_D("{\"name\": \"e\", \"type\": \"webhook\", \"ur\": \"http://127.0.0.1:9/\"}", 0, TIDEWIRE_BACKLOG_KEEP, empty), &err, TIDEWIRE_INVALID_CONFIG, "url"));
  CHECK("destination: unknown backlog", is(PUT_D(json, 0, 99, empty), &err, TIDEWIRE_INVALID_ARGUMENT, "waiting"));
  CHECK("destination: move without a place", is(PUT_D(json, 0, TIDEWIRE_BACKLOG_MOVE, empty), &err, TIDEWIRE_INVALID_ARGUMENT, "move_to"));
  CHECK("destination: a place without a move", is(PUT_D(json, 0, TIDEWIRE_BACKLOG_PURGE, tidewire_str("hook")), &err, TIDEWIRE_INVALID_ARGUMENT, "move_to"));

  CHECK("destination: suspended", is(tidewire_destination_suspend(engine, tidewire_str("d"), &err), &err, TIDEWIRE_OK, "") &&
                                      has(destination(engine, "d"), "\"state\":\"suspended\""));
  CHECK("destination: resumed", is(tidewire_destination_resume(engine, tidewire_str("d"), &err), &err, TIDEWIRE_OK, "") &&
                                    has(destination(engine, "d"), "\"state\":\"active\""));
  CHECK("destination: confirmed", is(tidewire_destination_confirm(engine, tidewire_str("d"), 0, &err), &err, TIDEWIRE_OK, ""));
  CHECK("destination: none of the name",
        is(tidewire_destination_suspend(engine, tidewire_str("x"), &err), &err, TIDEWIRE_NOT_FOUND, "x") &&
            is(tidewire_destination_resume(engine, tidewire_str("x"), &err), &err, TIDEWIRE_NOT_FOUND, "x") &&
            is(tidewire_destination_confirm(engine, tidewire_str("x"), 1, &err), &err, TIDEWIRE_NOT_FOUND, "x"));
  char *out = NULL;
  size_t len = 0;
  CHECK("destination: none to tell of",
        is(tidewire_destination_json(engine, tidewire_str("x"), &out, &len, &err), &err, TIDEWIRE_NOT_FOUND, "x") && out == NULL);
  tidewire_result_t result = tidewire_destination_test(engine, tidewire_str("d"), &out, &len, &err);
  CHECK("destination: a test tells that nobody listens",
        is(result, &err, TIDEWIRE_OK, "") && has(taken(TIDEWIRE_OK, out, len), "\"ok\":false") && has(text, "\"steps\":[") && has(text, "refused"));
  CHECK("destination: none to test", is(tidewire_destination_test(engine, tidewire_str("x"), &out, &len, &err), &err, TIDEWIRE_NOT_FOUND, "x"));
  result = tidewire_destination_rotate_secret(engine, tidewire_str("d"), empty, 0, &out, &len, &err);
  CHECK("destination: a new secret is made", is(result, &err, TIDEWIRE_OK, "") && has(taken(TIDEWIRE_OK, out, len), "whsec_"));
  CHECK("destination: one that does not fit",
        is(tidewire_destination_rotate_secret(engine, tidewire_str("d"), tidewire_str("short"), 0, &out, &len, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "whsec_") && out == NULL);
  CHECK("destination: one without a secret",
        is(tidewire_destination_rotate_secret(engine, tidewire_str("hook"), empty, 0, &out, &len, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "no secret"));

  CHECK("destination: a rule sends to it",
        is(PUT("{\"id\": \"to-d\", \"bucket\": \"new\", \"events\": [\"*\"], \"destinations\": [\"d\"]}", 0, NULL), &err, TIDEWIRE_OK, "") &&
            is(tidewire_destination_delete(engine, tidewire_str("d"), 0, TIDEWIRE_BACKLOG_PURGE, empty, &err), &err, TIDEWIRE_CONFLICT, "to-d"));
  CHECK("destination: deleted",
        is(tidewire_rule_delete(engine, tidewire_str("new"), tidewire_str("to-d"), 0, &err), &err, TIDEWIRE_OK, "") &&
            is(tidewire_destination_delete(engine, tidewire_str("d"), version, TIDEWIRE_BACKLOG_PURGE, empty, &err), &err, TIDEWIRE_OK, ""));
  CHECK("destination: deleted twice",
        is(tidewire_destination_delete(engine, tidewire_str("d"), 0, TIDEWIRE_BACKLOG_PURGE, empty, &err), &err, TIDEWIRE_NOT_FOUND, ""));
}

static void test_validate(void) {
  tidewire_error_t *err = NULL;
  tidewire_options_t options = TIDEWIRE_OPTIONS_INIT;
  options.config_text = tidewire_str(CONFIG);
  options.data_dir = tidewire_str("/nowhere/at/all");
  CHECK("validate: right", is(tidewire_validate(&options, &err), &err, TIDEWIRE_OK, ""));
  options.config_text = tidewire_str("[engine]\nshards = 2\nrin_bytes = \"1MiB\"\n");
  CHECK("validate: wrong", is(tidewire_validate(&options, &err), &err, TIDEWIRE_INVALID_CONFIG, "config_text:3:1: "));
  CHECK("validate: NULL", is(tidewire_validate(NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "options"));
}

struct told {
  unsigned count;
  uint32_t level;
  char target[128], message[512];
};

static void note_log(void *data, tidewire_log_level_t level, const char *target, const char *message) {
  struct told *told = data;
  if (!strstr(message, "`hook`")) return;
  told->count++;
  told->level = level;
  snprintf(told->target, sizeof told->target, "%s", target);
  snprintf(told->message, sizeof told->message, "%s", message);
}

static void test_log(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  struct told told = {0, 0, "", ""}, other = {0, 0, "", ""};
  const tidewire_bytes_t hook = tidewire_str("hook");
  CHECK("log: to a function", is(tidewire_log_to(note_log, &told, TIDEWIRE_LOG_INFO, &err), &err, TIDEWIRE_OK, ""));
  tidewire_destination_suspend(engine, hook, NULL);
  CHECK("log: it is told", told.count == 1 && told.level == TIDEWIRE_LOG_INFO && !strncmp(told.target, "tidewire", 8) && strstr(told.message, "uspend"));
  CHECK("log: to another function", is(tidewire_log_to(note_log, &other, TIDEWIRE_LOG_TRACE, &err), &err, TIDEWIRE_OK, ""));
  tidewire_destination_resume(engine, hook, NULL);
  CHECK("log: only that one is told", told.count == 1 && other.count >= 1);
  other.count = 0;
  CHECK("log: what is important", is(tidewire_log_to(note_log, &other, TIDEWIRE_LOG_ERROR, &err), &err, TIDEWIRE_OK, ""));
  tidewire_destination_resume(engine, hook, NULL);
  CHECK("log: the rest is left out", other.count == 0);
  CHECK("log: an unknown level", is(tidewire_log_to(note_log, &told, 6, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "TIDEWIRE_LOG_") &&
                                   is(tidewire_log_to(note_log, &told, 0, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "TIDEWIRE_LOG_"));
  CHECK("log: to nobody", is(tidewire_log_to(NULL, NULL, TIDEWIRE_LOG_TRACE, &err), &err, TIDEWIRE_OK, ""));
  tidewire_destination_resume(engine, hook, NULL);
  CHECK("log: nobody is told", other.count == 0 && told.count == 1);
}

#define DOCUMENT(inner) "<NotificationConfiguration>" inner "</NotificationConfiguration>"
#define QUEUE(arn, prefix)                                                                                          \
  "<QueueConfiguration><Queue>" arn "</Queue><Event>s3:ObjectCreated:*</Event><Filter><S3Key><FilterRule>"          \
  "<Name>prefix</Name><Value>" prefix "</Value></FilterRule></S3Key></Filter></QueueConfiguration>"
#define OURS "arn:tidewire:sqs:::hook"

static tidewire_result_t put_document(tidewire_engine_t *engine, const char *document,
                                      const tidewire_notification_options_t *options, uint64_t expect, uint64_t *version,
                                      tidewire_error_t **err) {
  return tidewire_bucket_notification_put(engine, tidewire_str("docs"), tidewire_str(document), options, expect, version, err);
}

static const char *document(tidewire_engine_t *engine, tidewire_notification_format_t format, uint64_t *version, size_t *left) {
  char *out = NULL;
  size_t len = 0;
  tidewire_result_t result = tidewire_bucket_notification_get(engine, tidewire_str("docs"), format, &out, &len, version, left, NULL);
  return taken(result, out, len);
}

/* Whether a call has failed so; frees its error. */
static int s3(tidewire_error_t **err, const char *code, uint32_t status) {
  int ok = strcmp(tidewire_error_s3_code(*err), code) == 0 && tidewire_error_s3_status(*err) == status;
  if (!ok) printf("     %s %u\n", tidewire_error_s3_code(*err), tidewire_error_s3_status(*err));
  tidewire_error_free(*err);
  *err = NULL;
  return ok;
}

static void test_notification(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_outcome_t outcome = 9;
  uint64_t first = 0, version = 9;
  size_t left = 9;
  tidewire_event_t event = event_of("docs", "in/a");
  tidewire_notification_options_t options = TIDEWIRE_NOTIFICATION_OPTIONS_INIT;

  CHECK("document: there is none", strcmp(document(engine, TIDEWIRE_NOTIFICATION_JSON, &version, &left), "{}") == 0 && version == 0 && left == 0);
  CHECK("document: checked only", is(tidewire_bucket_notification_check(engine, tidewire_str("docs"), tidewire_str(DOCUMENT(QUEUE(OURS, "in/"))), NULL, &err), &err, TIDEWIRE_OK, "") &&
                                  tidewire_publish(engine, &event, NULL, &outcome, NULL) == TIDEWIRE_OK && outcome == TIDEWIRE_OUTCOME_NO_MATCH);
  CHECK("document: put", is(put_document(engine, DOCUMENT(QUEUE(OURS, "in/")), NULL, TIDEWIRE_EXPECT_ABSENT, &first, &err), &err, TIDEWIRE_OK, "") && first > 0);
  CHECK("document: it is in force", tidewire_publish(engine, &event, NULL, &outcome, NULL) == TIDEWIRE_OK && outcome == TIDEWIRE_OUTCOME_ACCEPTED);
  CHECK("document: given back", has(document(engine, TIDEWIRE_NOTIFICATION_AUTO, &version, NULL), "<Queue>" OURS "</Queue><Event>s3:ObjectCreated:*</Event>") &&
                                has(text, "<Name>Prefix</Name><Value>in/</Value>") && version == first);
  CHECK("document: in JSON too", has(document(engine, TIDEWIRE_NOTIFICATION_JSON, NULL, NULL), "\"QueueArn\":\"" OURS "\""));
  char json[4096];
  memcpy(json, text, strlen(text) + 1);
  options.format = TIDEWIRE_NOTIFICATION_JSON;
  CHECK("document: put as it was given", is(put_document(engine, json, &options, first, &version, &err), &err, TIDEWIRE_OK, "") && version == first);
  CHECK("document: another format than said", put_document(engine, DOCUMENT(""), &options, 0, NULL, &err) == TIDEWIRE_INVALID_CONFIG && s3(&err, "MalformedXML", 400));
  options.format = TIDEWIRE_NOTIFICATION_AUTO;
  CHECK("document: another version", put_document(engine, DOCUMENT(""), NULL, first + 1000, NULL, &err) == TIDEWIRE_CONFLICT && s3(&err, "OperationAborted", 409));
  CHECK("document: cut", put_document(engine, "<NotificationConfiguration>", NULL, 0, NULL, &err) == TIDEWIRE_INVALID_CONFIG && s3(&err, "MalformedXML", 400));
  CHECK("document: nothing", put_document(engine, "", NULL, 0, NULL, &err) == TIDEWIRE_INVALID_CONFIG && s3(&err, "MalformedXML", 400));
  CHECK("document: an ARN of nobody", put_document(engine, DOCUMENT(QUEUE("arn:tidewire:sqs:::nobody", "")), NULL, 0, NULL, &err) == TIDEWIRE_INVALID_CONFIG &&
                                      has(tidewire_error_message(err), "1:") && s3(&err, "InvalidArgument", 400));
  CHECK("document: a bucket that cannot be", tidewire_bucket_notification_put(engine, tidewire_str("a/b"), tidewire_str(DOCUMENT("")), NULL, 0, NULL, &err) == TIDEWIRE_INVALID_CONFIG &&
                                             s3(&err, "InvalidBucketName", 400));
  CHECK("document: not UTF-8", tidewire_bucket_notification_put(engine, tidewire_str("docs"), tidewire_str("\xff"), NULL, 0, NULL, &err) == TIDEWIRE_INVALID_CONFIG &&
                               s3(&err, "InvalidArgument", 400));
  options.overlap = TIDEWIRE_OVERLAP_STRICT_AWS;
  const char *both = DOCUMENT(QUEUE(OURS, "in/") QUEUE(OURS, "in/a/"));
  CHECK("document: overlaps as AWS has them", put_document(engine, both, &options, 0, NULL, &err) == TIDEWIRE_INVALID_CONFIG && s3(&err, "InvalidArgument", 400));
  CHECK("document: overlaps are allowed else", is(put_document(engine, both, NULL, 0, NULL, &err), &err, TIDEWIRE_OK, ""));
  options.overlap = 3;
  CHECK("document: an unknown choice", is(put_document(engine, both, &options, 0, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "overlap"));
  options.overlap = TIDEWIRE_OVERLAP_ALLOW_DEDUPE;
  const char *bridge = DOCUMENT("<EventBridgeConfiguration/>");
  CHECK("document: no bridge", put_document(engine, bridge, &options, 0, NULL, &err) == TIDEWIRE_INVALID_CONFIG && s3(&err, "InvalidArgument", 400));
  options.event_bridge = tidewire_str("hook");
  CHECK("document: a bridge", is(put_document(engine, bridge, &options, 0, NULL, &err), &err, TIDEWIRE_OK, "") &&
                              has(document(engine, 0, NULL, NULL), "<EventBridgeConfiguration/>"));
  options.struct_size = 4;
  CHECK("document: a struct of the wrong size", is(put_document(engine, bridge, &options, 0, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "TIDEWIRE_NOTIFICATION_OPTIONS_INIT"));
  CHECK("document: a rule that it cannot say", is(PUT("{\"id\": \"r\", \"bucket\": \"docs\", \"events\": [\"*\"], \"priority\": \"high\", \"destinations\": [\"hook\"]}", 0, NULL), &err, TIDEWIRE_OK, "") &&
                                               has(document(engine, 0, &version, &left), "<EventBridgeConfiguration/>") && left == 1 && version > 0);
  CHECK("document: an empty one", is(put_document(engine, DOCUMENT(""), NULL, version, NULL, &err), &err, TIDEWIRE_OK, "") &&
                                  tidewire_publish(engine, &event, NULL, &outcome, NULL) == TIDEWIRE_OK && outcome == TIDEWIRE_OUTCOME_NO_MATCH);
  char *out = (char *)&err;
  CHECK("document: nowhere to", is(tidewire_bucket_notification_get(engine, tidewire_str("docs"), 0, NULL, NULL, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "text_out") &&
                                is(tidewire_bucket_notification_get(engine, tidewire_str("docs"), 7, &out, NULL, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "format") && out == NULL &&
                                is(tidewire_bucket_notification_get(NULL, tidewire_str("docs"), 0, &out, NULL, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine") &&
                                is(tidewire_bucket_notification_put(NULL, tidewire_str("docs"), tidewire_str("{}"), NULL, 0, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine") &&
                                is(tidewire_bucket_notification_check(NULL, tidewire_str("docs"), tidewire_str("{}"), NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine"));
  CHECK("s3: no error", strcmp(tidewire_error_s3_code(NULL), "") == 0 && tidewire_error_s3_status(NULL) == 200);
  tidewire_error_t *other = NULL;
  size_t len = 0;
  put_document(engine, "<a>", NULL, 0, NULL, &other);
  tidewire_result_t result = tidewire_error_s3_xml(other, tidewire_str("/docs?a<b"), tidewire_str("id-1"), &out, &len, &err);
  CHECK("s3: the document", is(result, &err, TIDEWIRE_OK, "") && has(taken(result, out, len), "<Code>MalformedXML</Code>") &&
                            has(text, "<Resource>/docs?a&lt;b</Resource><RequestId>id-1</RequestId></Error>"));
  CHECK("s3: of nothing", is(tidewire_error_s3_xml(NULL, tidewire_str("/"), tidewire_str(""), &out, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "error"));
  tidewire_error_free(other);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  scratch = argv[1];
  tidewire_error_t *err = NULL;
  tidewire_engine_t *engine = NULL;
  char dir[512];
  snprintf(dir, sizeof dir, "%s", directory("rules"));
  test_validate();
  CHECK("open", is(open_in(dir, CONFIG, &engine, &err), &err, TIDEWIRE_OK, ""));
  if (engine) {
    test_put_rules(engine);
    test_notification(engine);
    test_destinations(engine);
    test_log(engine);
    CHECK("kept: put", is(PUT("{\"id\": \"kept\", \"bucket\": \"k\", \"events\": [\"*\"], \"destinations\": [\"hook\"]}", 0, NULL), &err, TIDEWIRE_OK, ""));
    CHECK("kept: closed", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
    CHECK("kept: open again", is(open_in(dir, CONFIG, &engine, &err), &err, TIDEWIRE_OK, ""));
    CHECK("kept: the rule is there", has(rule(engine, "k", "kept"), "\"owner\":\"callers\""));
    CHECK("close", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
  }
  printf("%u passed, %u failed\n", passed, failed);
  return failed > 0;
}
