/* The C interface from C: what it refuses, what it says, and what it leaves behind.
 *
 *   test_api SCRATCH-DIRECTORY
 *
 * Prints a line per check, then `N passed, M failed`. Nothing has to listen anywhere.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <pthread.h>
#include <tidewire.h>

#include "check.h"

static int entries(const char *dir) {
  DIR *d = opendir(dir);
  int n = 0;
  if (!d) return -1;
  while (readdir(d)) n++;
  closedir(d);
  return n;
}

static void test_versions(void) {
  CHECK("the library's version is the header's", tidewire_version_number() == TIDEWIRE_VERSION_NUMBER);
  char text[32];
  snprintf(text, sizeof text, "%d.%d.%d", TIDEWIRE_VERSION_MAJOR, TIDEWIRE_VERSION_MINOR, TIDEWIRE_VERSION_PATCH);
  CHECK("the version's text", strcmp(tidewire_version(), text) == 0);
}

static void test_open(void) {
  tidewire_error_t *err = NULL;
  tidewire_engine_t *engine = (tidewire_engine_t *)&scratch;
  tidewire_options_t options = TIDEWIRE_OPTIONS_INIT;
  options.config_text = tidewire_str(CONFIG);
  options.data_dir = tidewire_str(directory("open"));

  CHECK("open: options NULL", is(tidewire_open(NULL, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "options"));
  CHECK("open: a failure sets the engine to NULL", engine == NULL);
  CHECK("open: engine_out NULL",
        is(tidewire_open(&options, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine_out is NULL"));
  CHECK("open: err NULL", tidewire_open(NULL, &engine, NULL) == TIDEWIRE_INVALID_ARGUMENT);

  size_t sizes[] = {0, 1, sizeof options - 1, sizeof options + 1, 2 * sizeof options, SIZE_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    options.struct_size = sizes[i];
    CHECK("open: wrong struct size", is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT,
                                        "options.struct_size is"));
  }
  options.struct_size = sizeof options;

  options.config_text = tidewire_bytes(NULL, 0);
  CHECK("open: no configuration", is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT,
                                     "give config_text or config_path"));
  options.config_text = tidewire_bytes(NULL, 7);
  CHECK("open: text NULL with a length",
        is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "config_text is NULL"));
  options.config_text = tidewire_bytes(CONFIG, SIZE_MAX);
  CHECK("open: text of a huge length",
        is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_CONFIG, "config_text has"));
  options.config_text = tidewire_str("[engine]\nregion = \"\xff\"\n");
  CHECK("open: text not UTF-8",
        is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_CONFIG, "not UTF-8 at offset 19"));
  options.config_text = tidewire_str(CONFIG);
  options.config_path = tidewire_str("/nowhere/tidewire.toml");
  CHECK("open: text and path", is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "not both"));
  options.config_text = tidewire_str("");
  CHECK("open: no such file",
        is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_IO, "/nowhere/tidewire.toml"));
  options.config_path = tidewire_bytes("a\0b", 3);
  CHECK("open: NUL in a path",
        is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "config_path has a NUL"));
  options.config_path = tidewire_bytes("a", SIZE_MAX);
  CHECK("open: path of a huge length",
        is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "config_path has"));

  CHECK("open: a wrong name in the text tells line, column and remedy",
        is(open_in(directory("open"), "[engine]\nshards = 2\nrin_bytes = \"1MiB\"\n", &engine, &err), &err,
           TIDEWIRE_INVALID_CONFIG, "config_text:3:1: "));
  tidewire_result_t result = open_in(directory("open"), "[engine]\nrin_bytes = \"1MiB\"\n", &engine, &err);
  CHECK("open: ... the remedy", is(result, &err, TIDEWIRE_INVALID_CONFIG, "did you mean `ring_bytes`"));
  CHECK("open: a wrong value tells its line",
        is(open_in(directory("open"), "[engine]\nshards = 0\n", &engine, &err), &err, TIDEWIRE_INVALID_CONFIG,
           "config_text:2:10: "));
  CHECK("open: not TOML",
        is(open_in(directory("open"), "[engine\n", &engine, &err), &err, TIDEWIRE_INVALID_CONFIG, "config_text:1:"));
  CHECK("open: a data directory that cannot be",
        is(open_in("/dev/null/x", CONFIG, &engine, &err), &err, TIDEWIRE_IO, "/dev/null/x"));

  /* A file with all that the text had. */
  char path[512];
  snprintf(path, sizeof path, "%s/tidewire.toml", scratch);
  FILE *file = fopen(path, "w");
  fputs(CONFIG, file);
  fclose(file);
  options.config_path = tidewire_str(path);
  CHECK("open: from a file", is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_OK, ""));
  tidewire_engine_t *second = NULL;
  CHECK("open: a data directory that is open",
        is(open_in(directory("open"), CONFIG, &second, &err), &err, TIDEWIRE_LOCKED, "open"));
  CHECK("open: a second engine on another directory",
        is(open_in(directory("open2"), CONFIG, &second, &err), &err, TIDEWIRE_OK, ""));
  CHECK("close: the second", is(tidewire_close(&second, 0, &err), &err, TIDEWIRE_OK, ""));
  CHECK("close: the first", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
  CHECK("close: clears the pointer", engine == NULL && second == NULL);
  CHECK("close: twice", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
  CHECK("close: NULL", is(tidewire_close(NULL, 0, &err), &err, TIDEWIRE_OK, ""));
  CHECK("close: everything NULL", tidewire_close(NULL, UINT64_MAX, NULL) == TIDEWIRE_OK);
}

static void test_nulls(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_event_t event = event_of("b", "k");
  tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
  tidewire_outcome_t outcome = 77;
  char *json = (char *)&event;
  size_t len = 77;

  CHECK("publish: engine NULL, as after close",
        is(tidewire_publish(NULL, &event, NULL, &outcome, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
  CHECK("publish: the outcome of a failure", outcome == TIDEWIRE_OUTCOME_REFUSED);
  CHECK("publish: event NULL",
        is(tidewire_publish(engine, NULL, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "event is NULL"));
  CHECK("publish: everything NULL", tidewire_publish(NULL, NULL, NULL, NULL, NULL) == TIDEWIRE_INVALID_ARGUMENT);
  CHECK("flush: engine NULL", is(tidewire_flush(NULL, 0, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
  CHECK("flush: everything NULL", tidewire_flush(NULL, 0, NULL) == TIDEWIRE_INVALID_ARGUMENT);
  CHECK("stats: engine NULL",
        is(tidewire_stats(NULL, &stats, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
  CHECK("stats: stats_out NULL",
        is(tidewire_stats(engine, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "stats_out is NULL"));
  CHECK("stats: everything NULL", tidewire_stats(NULL, NULL, NULL) == TIDEWIRE_INVALID_ARGUMENT);
  CHECK("stats_json: engine NULL",
        is(tidewire_stats_json(NULL, &json, &len, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
  CHECK("stats_json: a failure clears what it would have set", json == NULL && len == 0);
  CHECK("stats_json: json_out NULL",
        is(tidewire_stats_json(engine, NULL, &len, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "json_out is NULL"));
  CHECK("stats_json: everything NULL", tidewire_stats_json(NULL, NULL, NULL, NULL) == TIDEWIRE_INVALID_ARGUMENT);
  CHECK("is_interested: in doubt, yes", tidewire_is_interested(NULL, &event) && tidewire_is_interested(engine, NULL));
  CHECK("error: NULL has no code and no message",
        tidewire_error_code(NULL) == TIDEWIRE_OK && strcmp(tidewire_error_message(NULL), "") == 0);
  tidewire_error_free(NULL);
  tidewire_string_free(NULL);
  CHECK("free: NULL", 1);
}

static int refused(tidewire_engine_t *engine, const tidewire_event_t *event, tidewire_result_t expected,
                   const char *part) {
  tidewire_error_t *err = NULL;
  tidewire_outcome_t outcome = 77;
  tidewire_result_t result = tidewire_publish(engine, event, NULL, &outcome, &err);
  return is(result, &err, expected, part) && outcome == TIDEWIRE_OUTCOME_REFUSED;
}

static void test_fields(tidewire_engine_t *engine) {
  static const struct {
    const char *name;
    size_t offset;
  } fields[] = {
#define FIELD(name) {#name, offsetof(tidewire_event_t, name)}
      FIELD(bucket),       FIELD(version_id), FIELD(etag),       FIELD(requester),
      FIELD(source_ip),    FIELD(request_id), FIELD(host_id),    FIELD(region),
      FIELD(content_type), FIELD(method),     FIELD(user_agent), FIELD(bucket_owner),
      FIELD(key),          FIELD(data),
  };
  const size_t texts = 12, all = sizeof fields / sizeof *fields;
  char what[128], part[128];
  for (size_t i = 0; i < all; i++) {
    tidewire_event_t event = event_of("b", "k");
    tidewire_bytes_t *field = (tidewire_bytes_t *)(void *)((char *)&event + fields[i].offset);
    *field = tidewire_bytes(NULL, 3);
    snprintf(what, sizeof what, "%s: NULL with a length", fields[i].name);
    snprintf(part, sizeof part, "%s is NULL, but its length is 3", fields[i].name);
    CHECK(what, refused(engine, &event, TIDEWIRE_INVALID_ARGUMENT, part));
    snprintf(what, sizeof what, "%s: a huge length", fields[i].name);
    snprintf(part, sizeof part, "%s has 18446744073709551615 bytes", fields[i].name);
    *field = tidewire_bytes("x", SIZE_MAX);
    CHECK(what, refused(engine, &event, TIDEWIRE_INVALID_EVENT, part));
    if (i >= texts) continue;
    *field = tidewire_bytes("ab\xc3(", 4);
    snprintf(what, sizeof what, "%s: not UTF-8", fields[i].name);
    snprintf(part, sizeof part, "%s is not UTF-8 at offset 2", fields[i].name);
    CHECK(what, refused(engine, &event, TIDEWIRE_INVALID_EVENT, part));
  }

  tidewire_event_t event = event_of("", "k");
  CHECK("an empty bucket", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "bucket is empty"));
  event = event_of("b", "");
  CHECK("an empty key", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "key is empty"));
  char key[1025];
  memset(key, 'k', sizeof key);
  event.key = tidewire_bytes(key, 1025);
  CHECK("a key of 1025 bytes", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "key has 1025 bytes, more than 1024"));
  event.key = tidewire_bytes(key, 1024);
  CHECK("a key of 1024 bytes", tidewire_publish(engine, &event, NULL, NULL, NULL) == TIDEWIRE_OK);

  event = event_of("b", "k");
  event.event_type = TIDEWIRE_EVENT_NAMED;
  CHECK("no type", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "no type"));
  event.event_type_name = tidewire_str("s3:ObjectCreated:Putt");
  CHECK("an unknown name of a type",
        refused(engine, &event, TIDEWIRE_INVALID_EVENT, "did you mean `s3:ObjectCreated:Put`"));
  event.event_type_name = tidewire_bytes("\xff", 1);
  CHECK("a name of a type that is not UTF-8", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "event_type_name"));
  event.event_type_name = tidewire_str("s3:ObjectCreated:Put");
  CHECK("a type by name", tidewire_publish(engine, &event, NULL, NULL, NULL) == TIDEWIRE_OK);
  event.event_type = TIDEWIRE_EVENT_OBJECT_CREATED_PUT;
  CHECK("a type by number and by name", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "by number and one by name"));
  event = event_of("b", "k");
  event.event_type = (tidewire_event_type_t)65537;
  CHECK("an unknown number of a type", refused(engine, &event, TIDEWIRE_INVALID_ARGUMENT, "event_type is 65537"));
  event = event_of("b", "k");
  event.priority = (tidewire_priority_t)3;
  CHECK("an unknown priority", refused(engine, &event, TIDEWIRE_INVALID_ARGUMENT, "priority is 3"));
  event = event_of("b", "k");
  event.origin = (tidewire_origin_t)9;
  CHECK("an unknown origin", refused(engine, &event, TIDEWIRE_INVALID_ARGUMENT, "origin is 9"));
  event = event_of("b", "k");
  event.reserved = 1;
  CHECK("reserved bytes in use", refused(engine, &event, TIDEWIRE_INVALID_ARGUMENT, "reserved is 1"));

  size_t sizes[] = {0, sizeof event - 1, sizeof event + 8, SIZE_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    event = event_of("b", "k");
    event.struct_size = sizes[i];
    CHECK("event: wrong struct size", refused(engine, &event, TIDEWIRE_INVALID_ARGUMENT, "event.struct_size is"));
  }
  /* That of the first header, which ended with tags_count: what comes after is not looked at. */
  event = event_of("", "k");
  event.struct_size = offsetof(tidewire_event_t, tags_count) + sizeof event.tags_count;
  memset(&event.fetch, 0xff, sizeof event - event.struct_size);
  CHECK("event: of an earlier header", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "bucket is empty"));
}

static void test_pairs(tidewire_engine_t *engine) {
  static tidewire_pair_t pairs[65536];
  for (size_t i = 0; i < 65536; i++) {
    pairs[i].name = tidewire_str("n");
    pairs[i].value = tidewire_str("");
  }
  tidewire_event_t event = event_of("b", "k");
  event.metadata = NULL;
  event.metadata_count = 1;
  CHECK("metadata: NULL with a count", refused(engine, &event, TIDEWIRE_INVALID_ARGUMENT, "metadata is NULL"));
  event.metadata = pairs;
  event.metadata_count = SIZE_MAX;
  CHECK("metadata: a huge count", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "metadata has 18446744073709551615"));
  event.metadata_count = 65536;
  CHECK("metadata: too many", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "more than 65535"));
  event.metadata_count = 65535;
  CHECK("metadata: too large an event", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "bytes"));
  for (size_t count = 15; count <= 18; count++) {
    event.metadata_count = count;
    event.tags = pairs;
    event.tags_count = count;
    CHECK("metadata and tags", tidewire_publish(engine, &event, NULL, NULL, NULL) == TIDEWIRE_OK);
  }
  event.metadata_count = 0;
  event.tags_count = 3;
  pairs[2].value = tidewire_bytes("\xff", 1);
  CHECK("tags: a value that is not UTF-8", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "tags[2].value is not"));
  pairs[2].value = tidewire_bytes(NULL, 5);
  CHECK("tags: a value that is NULL", refused(engine, &event, TIDEWIRE_INVALID_ARGUMENT, "tags[2].value is NULL"));
  pairs[1].name = tidewire_bytes("x", SIZE_MAX);
  CHECK("tags: a name of a huge length", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "tags[1].name has"));
  pairs[1].name = tidewire_str("");
  pairs[2].value = tidewire_str("");
  CHECK("tags: an empty name", refused(engine, &event, TIDEWIRE_INVALID_EVENT, "tags"));
}

static void test_publish(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_outcome_t outcome = 77;
  tidewire_event_t event = event_of("b", "k");
  tidewire_publish_options_t options = TIDEWIRE_PUBLISH_OPTIONS_INIT;

  for (unsigned ack = 0; ack < 3; ack++) {
    options.ack = (tidewire_ack_t)ack;
    for (unsigned on_full = 0; on_full < 2; on_full++) {
      options.on_full = (tidewire_on_full_t)on_full;
      CHECK("publish: each ack level and policy",
            is(tidewire_publish(engine, &event, &options, &outcome, &err), &err, TIDEWIRE_OK, "") &&
                outcome == TIDEWIRE_OUTCOME_ACCEPTED);
    }
  }
  options.full_timeout_ms = options.ack_timeout_ms = UINT64_MAX;
  options.ack = TIDEWIRE_ACK_SYNCED;
  options.on_full = TIDEWIRE_ON_FULL_BLOCK;
  CHECK("publish: the longest timeouts",
        is(tidewire_publish(engine, &event, &options, &outcome, &err), &err, TIDEWIRE_OK, ""));
  options.ack = (tidewire_ack_t)3;
  CHECK("publish: an unknown ack level",
        is(tidewire_publish(engine, &event, &options, &outcome, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "ack is 3"));
  options.ack = TIDEWIRE_ACK_MEMORY;
  options.on_full = (tidewire_on_full_t)2;
  CHECK("publish: an unknown policy",
        is(tidewire_publish(engine, &event, &options, &outcome, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "on_full"));
  options.struct_size = 4;
  CHECK("publish: options of a wrong struct size",
        is(tidewire_publish(engine, &event, &options, &outcome, &err), &err, TIDEWIRE_INVALID_ARGUMENT,
           "options.struct_size is 4"));

  CHECK("is_interested: yes", tidewire_is_interested(engine, &event));
  event.bucket = tidewire_str("other");
  CHECK("is_interested: not in this bucket", !tidewire_is_interested(engine, &event));
  CHECK("publish: no rule wants it", is(tidewire_publish(engine, &event, NULL, &outcome, &err), &err, TIDEWIRE_OK, "") &&
                                         outcome == TIDEWIRE_OUTCOME_NO_MATCH);
  event.bucket = tidewire_str("b");
  event.event_type = TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE;
  CHECK("is_interested: not in this type", !tidewire_is_interested(engine, &event));
  event.bucket = tidewire_bytes("\xff", 1);
  CHECK("is_interested: in doubt about the bucket, yes", tidewire_is_interested(engine, &event));
}

static void test_stats(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  CHECK("flush: out of time", is(tidewire_flush(engine, 50, &err), &err, TIDEWIRE_TIMEOUT, "deliveries still wait"));
  CHECK("flush: no time", is(tidewire_flush(engine, 0, &err), &err, TIDEWIRE_TIMEOUT, ""));
  tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
  CHECK("stats", is(tidewire_stats(engine, &stats, &err), &err, TIDEWIRE_OK, ""));
  CHECK("stats: numbers", stats.shards == 2 && stats.accepted == 13 && stats.stored == 13 && stats.waiting == 13 &&
                              stats.no_match == 1 && stats.destinations == 1 && stats.unhealthy_shards == 0);
  CHECK("stats: the size field stays", stats.struct_size == sizeof stats);
  stats.struct_size = 8;
  CHECK("stats: wrong struct size",
        is(tidewire_stats(engine, &stats, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "stats_out.struct_size is 8"));
  char *json = NULL;
  size_t len = 0;
  CHECK("stats_json", is(tidewire_stats_json(engine, &json, &len, &err), &err, TIDEWIRE_OK, ""));
  CHECK("stats_json: the length", json && strlen(json) == len);
  CHECK("stats_json: the destination and its error",
        json && strstr(json, "\"accepted\":13") && strstr(json, "\"name\":\"hook\"") &&
            strstr(json, "\"last_error\":\"") && !strstr(json, "\"last_error\":\"\""));
  tidewire_string_free(json);
  CHECK("stats_json: without a length", tidewire_stats_json(engine, &json, NULL, NULL) == TIDEWIRE_OK);
  tidewire_string_free(json);
  CHECK("metrics", is(tidewire_prometheus(engine, TIDEWIRE_METRICS_PROMETHEUS, &json, &len, &err), &err, TIDEWIRE_OK, ""));
  CHECK("metrics: what it has counted", json && strlen(json) == len && strstr(json, "\ntidewire_events_accepted_total 13\n") &&
                                            strstr(json, "\ntidewire_destination_waiting{destination=\"hook\"} "));
  tidewire_string_free(json);
  CHECK("metrics: OpenMetrics", tidewire_prometheus(engine, TIDEWIRE_METRICS_OPENMETRICS, &json, NULL, NULL) == TIDEWIRE_OK &&
                                    json && strstr(json, "\n# EOF\n"));
  tidewire_string_free(json);
  CHECK("metrics: another format", is(tidewire_prometheus(engine, 2, &json, &len, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "TIDEWIRE_METRICS_") && !json && !len);
  CHECK("metrics: of nothing", is(tidewire_prometheus(NULL, 0, &json, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
}

static tidewire_filter_t *parsed(tidewire_filter_format_t format, const char *text) {
  tidewire_filter_t *filter = NULL;
  tidewire_error_t *err = NULL;
  if (!is(tidewire_filter_parse(format, tidewire_str(text), &filter, &err), &err, TIDEWIRE_OK, "")) return NULL;
  return filter;
}

/* Whether the text that was handed out has this in it; frees it. */
static int says(tidewire_result_t result, char *text, size_t len, const char *part) {
  int ok = result == TIDEWIRE_OK && text && strlen(text) == len && strstr(text, part) != NULL;
  if (!ok) printf("     result %u: %s\n", (unsigned)result, text ? text : "NULL");
  tidewire_string_free(text);
  return ok;
}

static void test_filter_formats(void) {
  static const struct {
    tidewire_filter_format_t format;
    const char *good, *bad, *why;
  } cases[] = {
      {TIDEWIRE_FILTER_JSON, "{\"prefix\": \"in/\"}", "{\"prefx\": \"in/\"}", "did you mean `prefix`?"},
      {TIDEWIRE_FILTER_EVENTBRIDGE, "{\"detail\": {\"object\": {\"key\": [{\"prefix\": \"in/\"}]}}}",
       "{\"detail\": {\"object\": {\"key\": []}}}", "pattern.detail.object.key"},
      {TIDEWIRE_FILTER_EVENTBRIDGE_DATA, "{\"a\": [1]}", "{\"a\": 1}", "pattern.a"},
      {TIDEWIRE_FILTER_CLOUDEVENTS, "[{\"prefix\": {\"subject\": \"in/\"}}]", "[{\"sql\": \"x\"}]", "filters[0]"},
      {TIDEWIRE_FILTER_CEL, "event.key.startsWith('in/')", "event.key.beginsWith('in/')", "cel, column"},
      {TIDEWIRE_FILTER_S3, "{\"Key\": {\"FilterRules\": [{\"Name\": \"prefix\", \"Value\": \"in/\"}]}}",
       "<Filter><S3Tags/></Filter>", "filter:1:9"},
      {TIDEWIRE_FILTER_S3_CEPH, "<Filter><S3Key><FilterRule><Name>regex</Name><Value>in/.*</Value></FilterRule></S3Key></Filter>",
       "{\"Key\": {\"FilterRules\": [{\"Name\": \"regex\", \"Value\": \"(\"}]}}", "filter:1:"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tidewire_error_t *err = NULL;
    tidewire_filter_t *filter = parsed(cases[i].format, cases[i].good);
    CHECK("filter: read in each form", filter != NULL);
    tidewire_event_t event = event_of("b", "in/a");
    if (cases[i].format == TIDEWIRE_FILTER_EVENTBRIDGE_DATA) event.data = tidewire_str("{\"a\": [2, 1]}");
    bool passes = false;
    CHECK("filter: it passes in each form",
          is(tidewire_filter_matches(filter, &event, &passes, &err), &err, TIDEWIRE_OK, "") && passes);
    event = event_of("b", "out/a");
    CHECK("filter: and does not pass",
          is(tidewire_filter_matches(filter, &event, &passes, &err), &err, TIDEWIRE_OK, "") && !passes);
    tidewire_filter_free(filter);
    filter = (tidewire_filter_t *)&scratch;
    CHECK("filter: refused in each form, with the place",
          is(tidewire_filter_parse(cases[i].format, tidewire_str(cases[i].bad), &filter, &err), &err,
             TIDEWIRE_INVALID_CONFIG, cases[i].why) &&
              filter == NULL);
  }
}

static void test_filters(void) {
  tidewire_error_t *err = NULL;
  tidewire_filter_t *filter = NULL;
  test_filter_formats();
  CHECK("filter: unknown format", is(tidewire_filter_parse(7, tidewire_str("{}"), &filter, &err), &err,
                                     TIDEWIRE_INVALID_ARGUMENT, "format is 7"));
  CHECK("filter: filter_out NULL",
        is(tidewire_filter_parse(0, tidewire_str("{}"), NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "filter_out is NULL"));
  CHECK("filter: text NULL with a length", is(tidewire_filter_parse(0, tidewire_bytes(NULL, 3), &filter, &err), &err,
                                              TIDEWIRE_INVALID_ARGUMENT, "text is NULL"));
  CHECK("filter: text not UTF-8",
        is(tidewire_filter_parse(0, tidewire_str("{\"prefix\": \"\xff\"}"), &filter, &err), &err, TIDEWIRE_INVALID_CONFIG,
           "not UTF-8 at offset 12"));
  CHECK("filter: text of a huge length",
        is(tidewire_filter_parse(0, tidewire_bytes("{}", SIZE_MAX), &filter, &err), &err, TIDEWIRE_INVALID_CONFIG,
           "text has"));
  CHECK("filter: err NULL", tidewire_filter_parse(0, tidewire_str("{"), &filter, NULL) == TIDEWIRE_INVALID_CONFIG &&
                                filter == NULL);

  filter = parsed(TIDEWIRE_FILTER_JSON, "{\"suffix\": [\".a\", \".b\"], \"size\": {\"min\": 5}, \"key\": {\"regex\": \"^in/[0-9]\"}}");
  tidewire_event_t event = event_of("b", "in/1.a");
  bool passes = true;
  char *text = (char *)&scratch;
  size_t len = 99;
  CHECK("filter: matches without a filter",
        is(tidewire_filter_matches(NULL, &event, &passes, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "filter is NULL") &&
            !passes);
  CHECK("filter: matches without an event",
        is(tidewire_filter_matches(filter, NULL, &passes, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "event is NULL"));
  CHECK("filter: matches without an answer",
        is(tidewire_filter_matches(filter, &event, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "passes_out is NULL"));
  event.key = tidewire_str("");
  passes = true;
  CHECK("filter: an event that is none",
        is(tidewire_filter_matches(filter, &event, &passes, &err), &err, TIDEWIRE_INVALID_EVENT, "key") && !passes);
  CHECK("filter: explain an event that is none",
        is(tidewire_filter_explain(filter, &event, &text, &len, &err), &err, TIDEWIRE_INVALID_EVENT, "key") &&
            text == NULL && len == 0);
  event.key = tidewire_str("in/1.a");
  tidewire_result_t result = tidewire_filter_explain(filter, &event, &text, &len, NULL);
  CHECK("filter: explain what is not met", says(result, text, len, "{\"size\":{\"min\":5}} is not met: the event has no size"));
  event.has_size = 1;
  event.size = 5;
  CHECK("filter: it passes", tidewire_filter_matches(filter, &event, &passes, NULL) == TIDEWIRE_OK && passes);
  result = tidewire_filter_explain(filter, &event, &text, &len, NULL);
  CHECK("filter: nothing to explain", says(result, text, len, "") && len == 0);
  result = tidewire_filter_plan(filter, &text, &len, NULL);
  CHECK("filter: plan", says(result, text, len, "filed under  {\"prefix\":\"in/\"}"));
  result = tidewire_filter_plan_json(filter, &text, &len, NULL);
  CHECK("filter: plan as JSON", says(result, text, len, "\"cost\":\"indexed\""));
  result = tidewire_filter_json(filter, &text, &len, NULL);
  CHECK("filter: the native form", says(result, text, len, "\"regex\":\"^in/[0-9]\""));
  CHECK("filter: plan without a filter",
        is(tidewire_filter_plan(NULL, &text, &len, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "filter is NULL"));
  CHECK("filter: plan as JSON, nowhere to put it",
        is(tidewire_filter_plan_json(filter, NULL, &len, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "json_out is NULL"));
  CHECK("filter: the native form of nothing",
        is(tidewire_filter_json(NULL, &text, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "filter is NULL") && !text);
  tidewire_filter_free(filter);
  tidewire_filter_free(NULL);
  CHECK("filter: schema", strstr(tidewire_filter_schema(), "json-schema.org/draft/2020-12"));
}

static void test_lint(void) {
  static const char rules[] =
      "[[rule]]\nid = \"never\"\nevents = [\"*\"]\ndestinations = [\"x\"]\nfilter = { size = { min = 2, max = 1 } }\n";
  tidewire_error_t *err = NULL;
  char *json = NULL;
  size_t len = 0;
  tidewire_result_t result = tidewire_lint(tidewire_str(rules), &json, &len, NULL);
  CHECK("lint: finds", says(result, json, len, "\"kind\":\"never\"") && len > 0);
  result = tidewire_lint(tidewire_str(CONFIG), &json, &len, NULL);
  CHECK("lint: finds nothing", says(result, json, len, "[]"));
  CHECK("lint: of what is no configuration", is(tidewire_lint(tidewire_str("[[rule]]\nix = 1\n"), &json, &len, &err), &err,
                                                TIDEWIRE_INVALID_CONFIG, "config_text:2:1") &&
                                                 json == NULL);
  CHECK("lint: json_out NULL",
        is(tidewire_lint(tidewire_str(rules), NULL, &len, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "json_out is NULL"));
}

static void test_receive(void) {
  static const char record[] = "{\"Records\":[{\"eventName\":\"ObjectCreated:Put\",\"eventId\":\"7\",\"s3\":{\"bucket\":"
                               "{\"name\":\"b\"},\"object\":{\"key\":\"a+%FF\",\"sequencer\":\"0A\"}}}]}";
  tidewire_error_t *err = NULL;
  char *json = NULL;
  size_t len = 0;
  int32_t order = 7;
  tidewire_result_t result = tidewire_receive_json(tidewire_str(record), &json, &len, NULL);
  CHECK("receive: reads", says(result, json, len, "\"key_base64\":\"YSD/\""));
  CHECK("receive: what is no record", is(tidewire_receive_json(tidewire_str("{}"), &json, &len, &err), &err,
                                         TIDEWIRE_INVALID_ARGUMENT, "none of the documents") &&
                                          json == NULL);
  CHECK("receive: json_out NULL",
        is(tidewire_receive_json(tidewire_str(record), NULL, &len, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "json_out is NULL"));
  /* A vector of Standard Webhooks, whose time is long ago. */
  tidewire_bytes_t secret = tidewire_str("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
  tidewire_bytes_t id = tidewire_str("msg_p5jXN8AQM9LWM0D4loKWxJek"), time = tidewire_str("1614265330");
  tidewire_bytes_t good = tidewire_str("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="), body = tidewire_str("{\"test\": 2432232314}");
  CHECK("receive: verifies", tidewire_receive_verify(secret, id, time, good, body, UINT32_MAX, NULL) == TIDEWIRE_OK);
  CHECK("receive: too late", is(tidewire_receive_verify(secret, id, time, good, body, 0, &err), &err, TIDEWIRE_INVALID_ARGUMENT,
                                "too far from now"));
  CHECK("receive: another body", is(tidewire_receive_verify(secret, id, time, good, id, UINT32_MAX, &err), &err,
                                    TIDEWIRE_INVALID_ARGUMENT, "no signature fits"));
  CHECK("receive: no secret", is(tidewire_receive_verify(tidewire_str(""), id, time, good, body, 0, &err), &err,
                                 TIDEWIRE_INVALID_ARGUMENT, "there is no secret"));
  CHECK("sequencers: compares",
        tidewire_sequencer_compare(tidewire_str("0A"), tidewire_str("9"), &order, NULL) == TIDEWIRE_OK && order == 1);
  CHECK("sequencers: what is none", is(tidewire_sequencer_compare(tidewire_str("0A"), tidewire_str("x"), &order, &err), &err,
                                       TIDEWIRE_INVALID_ARGUMENT, "is no sequencer"));
  CHECK("sequencers: order_out NULL", is(tidewire_sequencer_compare(tidewire_str("0A"), tidewire_str("9"), NULL, &err), &err,
                                         TIDEWIRE_INVALID_ARGUMENT, "order_out is NULL"));
}

struct matcher {
  const tidewire_filter_t *filter;
  unsigned wrong;
};

static void *match_many(void *arg) {
  struct matcher *m = arg;
  for (unsigned i = 0; i < 500; i++) {
    char key[32];
    snprintf(key, sizeof key, "%s/%u", i % 2 ? "in" : "out", i);
    tidewire_event_t event = event_of("b", key);
    bool passes = false;
    if (tidewire_filter_matches(m->filter, &event, &passes, NULL) != TIDEWIRE_OK || passes != (i % 2 == 1)) m->wrong++;
  }
  return NULL;
}

static void test_filter_threads(void) {
  tidewire_filter_t *filter = parsed(TIDEWIRE_FILTER_JSON, "{\"regex\": \"^in/[0-9]+$\"}");
  pthread_t threads[4];
  struct matcher matchers[4];
  for (unsigned i = 0; i < 4; i++) {
    matchers[i] = (struct matcher){filter, 0};
    if (pthread_create(&threads[i], NULL, match_many, &matchers[i]) != 0) exit(2);
  }
  unsigned wrong = 0;
  for (unsigned i = 0; i < 4; i++) {
    pthread_join(threads[i], NULL);
    wrong += matchers[i].wrong;
  }
  CHECK("filter: 4 threads match with one", wrong == 0);
  tidewire_filter_free(filter);
}

/* What a forked child does: it is told that the engine is not its own, and opens one. */
static int child_of_fork(tidewire_engine_t *engine, const char *dir) {
  tidewire_error_t *err = NULL;
  tidewire_event_t event = event_of("b", "k");
  tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
  char *json = NULL;
  int ok = is(tidewire_publish(engine, &event, NULL, NULL, &err), &err, TIDEWIRE_WRONG_PROCESS, "after the fork");
  ok = ok && is(tidewire_flush(engine, 100, &err), &err, TIDEWIRE_WRONG_PROCESS, "");
  ok = ok && is(tidewire_stats(engine, &stats, &err), &err, TIDEWIRE_WRONG_PROCESS, "");
  ok = ok && is(tidewire_stats_json(engine, &json, NULL, &err), &err, TIDEWIRE_WRONG_PROCESS, "");
  ok = ok && tidewire_is_interested(engine, &event);
  tidewire_filter_t *filter = parsed(TIDEWIRE_FILTER_CEL, "event.key.matches('^k')");
  bool passes = false;
  ok = ok && tidewire_filter_matches(filter, &event, &passes, NULL) == TIDEWIRE_OK && passes;
  tidewire_filter_free(filter);
  ok = ok && is(tidewire_close(&engine, 100, &err), &err, TIDEWIRE_WRONG_PROCESS, "") && engine == NULL;
  ok = ok && is(open_in(dir, CONFIG, &engine, &err), &err, TIDEWIRE_OK, "");
  ok = ok && is(tidewire_publish(engine, &event, NULL, NULL, &err), &err, TIDEWIRE_OK, "");
  return ok && is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, "");
}

/* Many times: the child's threads get the memory of those it does not have, and nothing that waits may be lost by that. */
static void test_fork(tidewire_engine_t *engine) {
  enum { FORKS = 20, SECONDS = 60 };
  char dir[512];
  int ended_well = 0;
  for (int i = 0; i < FORKS && ended_well == i; i++) {
    char name[32];
    snprintf(name, sizeof name, "child-%d", i);
    snprintf(dir, sizeof dir, "%s", directory(name));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
      alarm(SECONDS); /* rather than hang */
      int ok = child_of_fork(engine, dir);
      fflush(stdout);
      _exit(ok ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    ended_well += status == 0;
  }
  CHECK("fork: each child is told, and opens its own", ended_well == FORKS);
  tidewire_event_t event = event_of("b", "k");
  CHECK("fork: the parent goes on", tidewire_publish(engine, &event, NULL, NULL, NULL) == TIDEWIRE_OK);
}

/* A child that lives on, as a worker that was forked and does not know of the engine. */
static void test_fork_and_reopen(tidewire_engine_t **engine, const char *dir) {
  fflush(stdout);
  int pipes[2];
  if (pipe(pipes) != 0) exit(2);
  pid_t child = fork();
  if (child == 0) {
    char end;
    close(pipes[1]);
    _exit(read(pipes[0], &end, 1) == 0 ? 0 : 1);
  }
  close(pipes[0]);
  tidewire_error_t *err = NULL;
  CHECK("close: with a forked child alive", is(tidewire_close(engine, 0, &err), &err, TIDEWIRE_OK, ""));
  CHECK("open: again, with the forked child alive", is(open_in(dir, CONFIG, engine, &err), &err, TIDEWIRE_OK, ""));
  close(pipes[1]);
  int status = -1;
  waitpid(child, &status, 0);
}

struct publisher {
  tidewire_engine_t *engine;
  unsigned number, failures;
};

static void *publish_many(void *arg) {
  struct publisher *p = arg;
  tidewire_publish_options_t options = TIDEWIRE_PUBLISH_OPTIONS_INIT;
  for (unsigned i = 0; i < 500; i++) {
    char key[64];
    snprintf(key, sizeof key, "thread-%u/%u", p->number, i % 7);
    tidewire_event_t event = event_of("b", key);
    options.ack = i % 100 == 0 ? TIDEWIRE_ACK_SYNCED : TIDEWIRE_ACK_MEMORY;
    if (tidewire_publish(p->engine, &event, &options, NULL, NULL) != TIDEWIRE_OK) p->failures++;
  }
  return NULL;
}

static void test_threads(void) {
  tidewire_error_t *err = NULL;
  tidewire_engine_t *engine = NULL;
  CHECK("threads: open", is(open_in(directory("threads"), CONFIG, &engine, &err), &err, TIDEWIRE_OK, ""));
  pthread_t threads[8];
  struct publisher publishers[8];
  for (unsigned i = 0; i < 8; i++) {
    publishers[i] = (struct publisher){engine, i, 0};
    if (pthread_create(&threads[i], NULL, publish_many, &publishers[i]) != 0) exit(2);
  }
  unsigned failures = 0;
  for (unsigned i = 0; i < 8; i++) {
    pthread_join(threads[i], NULL);
    failures += publishers[i].failures;
  }
  tidewire_event_t event = event_of("b", "last");
  tidewire_publish(engine, &event, NULL, NULL, NULL);
  struct timespec wait = {0, 100000000};
  nanosleep(&wait, NULL);
  tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
  CHECK("threads: 8 publish 500 each", tidewire_stats(engine, &stats, NULL) == TIDEWIRE_OK && failures == 0 &&
                                           stats.accepted == 4001 && stats.stored == 4001);
  CHECK("threads: close", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
}

/* Whether a directory of /proc comes to have so many entries. The helper thread of a shard ends by itself, a moment
 * after the shard. */
static int settles(const char *dir, int expected) {
  struct timespec wait = {0, 10000000};
  for (int i = 0; i < 200 && entries(dir) != expected; i++) nanosleep(&wait, NULL);
  if (entries(dir) != expected) printf("     %s has %d entries, not %d\n", dir, entries(dir), expected);
  return entries(dir) == expected;
}

static void test_cycles(int fds, int threads) {
  int ok = 1;
  for (int i = 0; i < 20; i++) {
    tidewire_engine_t *engine = NULL;
    tidewire_event_t event = event_of("b", "k");
    ok = ok && open_in(directory("cycles"), CONFIG, &engine, NULL) == TIDEWIRE_OK;
    ok = ok && tidewire_publish(engine, &event, NULL, NULL, NULL) == TIDEWIRE_OK;
    ok = ok && tidewire_close(&engine, 0, NULL) == TIDEWIRE_OK;
  }
  CHECK("cycles: 20 of open, publish, close", ok);
  CHECK("cycles: no thread is left", settles("/proc/self/task", threads));
  CHECK("cycles: no descriptor is left", settles("/proc/self/fd", fds));
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s SCRATCH-DIRECTORY\n", argv[0]);
    return 2;
  }
  scratch = argv[1];
  int fds = entries("/proc/self/fd"), threads = entries("/proc/self/task");
  test_versions();
  test_filters();
  test_lint();
  test_receive();
  test_filter_threads();
  test_open();
  test_cycles(fds, threads);

  char dir[512];
  snprintf(dir, sizeof dir, "%s", directory("main"));
  tidewire_error_t *err = NULL;
  tidewire_engine_t *engine = NULL;
  CHECK("open", is(open_in(dir, CONFIG, &engine, &err), &err, TIDEWIRE_OK, ""));
  test_nulls(engine);
  test_fields(engine);
  test_pairs(engine);
  test_publish(engine);
  test_stats(engine);
  test_fork(engine);
  test_fork_and_reopen(&engine, dir);
  CHECK("close", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
  tidewire_event_t event = event_of("b", "k");
  CHECK("publish: after close there is nothing to publish to",
        is(tidewire_publish(engine, &event, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
  test_threads();
  printf("%u passed, %u failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
