/* The ways to publish but the plain one, from C: batches, completions, reservations, what a crash left in doubt, and logs
 * of the host.
 *
 *   test_publish SCRATCH-DIRECTORY
 *
 * Prints a line per check, then `N passed, M failed`. Nothing has to listen anywhere.
 */
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <pthread.h>

#include "check.h"

#define DEDUP CONFIG_OF("[engine.dedup]\nwindow = \"1h\"\n")

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static tidewire_stats_t stats_of(tidewire_engine_t *engine) {
  tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
  tidewire_stats(engine, &stats, NULL);
  return stats;
}

static void test_json(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_published_t done = TIDEWIRE_PUBLISHED_INIT;
  const tidewire_bytes_t empty = tidewire_bytes(NULL, 0);
  const char *lines = "{\"type\": \"s3:ObjectCreated:Put\", \"bucket\": \"b\", \"key\": \"1\", \"size\": 3}\n"
                      "{\"type\": \"s3:ObjectCreated:Put\", \"bucket\": \"other\", \"key\": \"2\"}\n"
                      "{\"type\": \"s3:ObjectCreated:Copy\", \"bucket\": \"b\", \"key\": \"3\"}\n";
  const char *records = "{\"Records\": [{\"eventVersion\": \"2.1\", \"eventSource\": \"aws:s3\", \"eventName\": \"ObjectCreated:Put\", "
                        "\"s3\": {\"bucket\": {\"name\": \"b\"}, \"object\": {\"key\": \"a+b\", \"size\": 1}}}]}";
  const char *cloud = "{\"specversion\": \"1.0\", \"id\": \"1\", \"source\": \"aws:s3.eu.b\", \"type\": \"com.amazonaws.s3.ObjectCreated:Put\", "
                      "\"subject\": \"k\", \"data\": {\"eventName\": \"ObjectCreated:Put\", \"s3\": {\"bucket\": {\"name\": \"b\"}, \"object\": {\"key\": \"k\"}}}}";
#define PUBLISH_JSON(text, type) tidewire_publish_json(engine, tidewire_str(text), type, NULL, &done, &err)
  uint64_t before = stats_of(engine).accepted;
  CHECK("json: lines", is(PUBLISH_JSON(lines, empty), &err, TIDEWIRE_OK, "") && done.accepted == 2 && done.no_match == 1 && done.duplicates == 0);
  CHECK("json: records of S3", is(PUBLISH_JSON(records, tidewire_str("application/json")), &err, TIDEWIRE_OK, "") && done.accepted == 1);
  CHECK("json: a CloudEvent", is(PUBLISH_JSON(cloud, tidewire_str("application/cloudevents+json")), &err, TIDEWIRE_OK, "") && done.accepted == 1);
  CHECK("json: they are counted", stats_of(engine).accepted == before + 4);
  CHECK("json: without counts", is(tidewire_publish_json(engine, tidewire_str(lines), empty, NULL, NULL, &err), &err, TIDEWIRE_OK, ""));
  char wrong[1024];
  snprintf(wrong, sizeof wrong, "%s{\"type\": \"s3:ObjectCreated:Put\", \"bukket\": \"b\"}\n", lines);
  before = stats_of(engine).accepted;
  CHECK("json: of a document with an error nothing is published",
        is(PUBLISH_JSON(wrong, empty), &err, TIDEWIRE_INVALID_EVENT, "bucket") && done.accepted == 0 && stats_of(engine).accepted == before);
  CHECK("json: no JSON", is(PUBLISH_JSON("{", empty), &err, TIDEWIRE_INVALID_EVENT, ""));
  CHECK("json: nothing", is(PUBLISH_JSON("", empty), &err, TIDEWIRE_INVALID_EVENT, ""));
  CHECK("json: no pointer", is(tidewire_publish_json(engine, tidewire_bytes(NULL, 5), empty, NULL, &done, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "json is NULL"));
  CHECK("json: too long", is(tidewire_publish_json(engine, tidewire_bytes(lines, SIZE_MAX), empty, NULL, &done, &err), &err, TIDEWIRE_INVALID_EVENT, "json has"));
  CHECK("json: no engine", is(tidewire_publish_json(NULL, tidewire_str(lines), empty, NULL, &done, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
  done.struct_size = 1;
  CHECK("json: counts of another size", is(PUBLISH_JSON(lines, empty), &err, TIDEWIRE_INVALID_ARGUMENT, "TIDEWIRE_PUBLISHED_INIT") && stats_of(engine).accepted == before);
}

static void test_batch(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_event_t events[5];
  tidewire_outcome_t outcomes[5] = {9, 9, 9, 9, 9};
  for (int i = 0; i < 5; i++) events[i] = event_of(i == 2 ? "other" : "b", "batch");

  uint64_t before = stats_of(engine).accepted;
  CHECK("batch: all are published", is(tidewire_publish_batch(engine, events, 5, NULL, outcomes, &err), &err, TIDEWIRE_OK, ""));
  CHECK("batch: each has its outcome",
        outcomes[0] == TIDEWIRE_OUTCOME_ACCEPTED && outcomes[1] == TIDEWIRE_OUTCOME_ACCEPTED &&
            outcomes[2] == TIDEWIRE_OUTCOME_NO_MATCH && outcomes[3] == TIDEWIRE_OUTCOME_ACCEPTED &&
            outcomes[4] == TIDEWIRE_OUTCOME_ACCEPTED);
  CHECK("batch: they are counted", stats_of(engine).accepted == before + 4);

  events[3].key = tidewire_str("");
  CHECK("batch: the refused one is named",
        is(tidewire_publish_batch(engine, events, 5, NULL, outcomes, &err), &err, TIDEWIRE_INVALID_EVENT, "events[3]"));
  CHECK("batch: those before it are accepted, it and those after it are not",
        outcomes[1] == TIDEWIRE_OUTCOME_ACCEPTED && outcomes[3] == TIDEWIRE_OUTCOME_REFUSED &&
            outcomes[4] == TIDEWIRE_OUTCOME_REFUSED);
  CHECK("batch: and counted", stats_of(engine).accepted == before + 6);
  events[3].key = tidewire_bytes(NULL, 3);
  CHECK("batch: of one that cannot be read none is published",
        is(tidewire_publish_batch(engine, events, 5, NULL, outcomes, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "events[3]") &&
            outcomes[0] == TIDEWIRE_OUTCOME_REFUSED && stats_of(engine).accepted == before + 6);
  events[3] = event_of("b", "batch");
  events[3].struct_size -= 8;
  CHECK("batch: sizes that differ",
        is(tidewire_publish_batch(engine, events, 5, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "events[3].struct_size"));
  CHECK("batch: NULL", is(tidewire_publish_batch(engine, NULL, 5, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "events"));
  CHECK("batch: nothing", is(tidewire_publish_batch(engine, NULL, 0, NULL, NULL, &err), &err, TIDEWIRE_OK, ""));
  CHECK("batch: a huge count",
        is(tidewire_publish_batch(engine, events, SIZE_MAX, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "entries"));
  CHECK("batch: engine NULL",
        is(tidewire_publish_batch(NULL, events, 5, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
}

static void test_dedup(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_event_t event = event_of("b", "dedup");
  tidewire_publish_options_t options = TIDEWIRE_PUBLISH_OPTIONS_INIT;
  tidewire_outcome_t outcome = 9;
  options.dedup_key = tidewire_str("request-1");
  CHECK("dedup: the first is accepted",
        is(tidewire_publish(engine, &event, &options, &outcome, &err), &err, TIDEWIRE_OK, "") && outcome == TIDEWIRE_OUTCOME_ACCEPTED);
  CHECK("dedup: the second is a duplicate",
        is(tidewire_publish(engine, &event, &options, &outcome, &err), &err, TIDEWIRE_OK, "") && outcome == TIDEWIRE_OUTCOME_DUPLICATE);
  options.ack = TIDEWIRE_ACK_MEMORY;
  CHECK("dedup: at memory too",
        is(tidewire_publish(engine, &event, &options, &outcome, &err), &err, TIDEWIRE_OK, "") && outcome == TIDEWIRE_OUTCOME_DUPLICATE);
  options.dedup_key = tidewire_bytes("x", SIZE_MAX);
  CHECK("dedup: a huge key",
        is(tidewire_publish(engine, &event, &options, &outcome, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "dedup_key"));
}

/* Takes completions until `count` have come or it takes too long; each number of `seen` is counted. */
static size_t take(tidewire_completions_t *c, size_t count, unsigned *seen, size_t size) {
  size_t taken = 0;
  double until = now() + 30;
  while (taken < count && now() < until) {
    struct pollfd p = {tidewire_completions_fd(c), POLLIN, 0};
    if (poll(&p, 1, 1000) != 1) continue;
    tidewire_completion_t done[16];
    size_t n = 99;
    if (tidewire_completions_take(c, done, 16, &n, NULL) != TIDEWIRE_OK) break;
    for (size_t i = 0; i < n; i++)
      if (done[i].result == TIDEWIRE_OK && done[i].user_data < size) seen[done[i].user_data]++;
    taken += n;
  }
  return taken;
}

static int all_once(const unsigned *seen, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (seen[i] != 1) return 0;
  return 1;
}

struct told {
  pthread_mutex_t lock;
  unsigned seen[300];
  size_t count;
};

static void tell(void *data, const tidewire_completion_t *completions, size_t count) {
  struct told *told = data;
  pthread_mutex_lock(&told->lock);
  for (size_t i = 0; i < count; i++)
    if (completions[i].result == TIDEWIRE_OK && completions[i].user_data < 300) told->seen[completions[i].user_data]++;
  told->count += count;
  pthread_mutex_unlock(&told->lock);
}

static void test_completions(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_completions_t *c = NULL;
  static unsigned seen[1000];
  tidewire_event_t event = event_of("b", "submit");
  tidewire_outcome_t outcome = 9;
  tidewire_completion_t done[2];
  size_t count = 9;

  CHECK("completions: open", is(tidewire_completions_open(engine, NULL, &c, &err), &err, TIDEWIRE_OK, "") && c);
  CHECK("completions: none yet", is(tidewire_completions_take(c, done, 2, &count, &err), &err, TIDEWIRE_OK, "") && count == 0);
  int ok = 1;
  for (uint64_t i = 0; i < 1000; i++) {
    char key[32];
    snprintf(key, sizeof key, "submit-%u", (unsigned)(i % 50));
    event.key = tidewire_str(key);
    tidewire_publish_options_t options = TIDEWIRE_PUBLISH_OPTIONS_INIT;
    options.ack = (tidewire_ack_t)(i % 3);
    ok &= tidewire_submit(engine, &event, &options, c, i, &outcome, NULL) == TIDEWIRE_OK;
    ok &= outcome == TIDEWIRE_OUTCOME_ACCEPTED;
  }
  CHECK("completions: 1000 are submitted", ok);
  CHECK("completions: 1000 come, each once", take(c, 1000, seen, 1000) == 1000 && all_once(seen, 1000));
  event = event_of("other", "k");
  CHECK("completions: an event that no rule wants has none",
        is(tidewire_submit(engine, &event, NULL, c, 1, &outcome, &err), &err, TIDEWIRE_OK, "") &&
            outcome == TIDEWIRE_OUTCOME_NO_MATCH && tidewire_completions_take(c, done, 2, &count, NULL) == TIDEWIRE_OK && count == 0);
  event = event_of("b", "");
  CHECK("completions: nor has one that is refused",
        is(tidewire_submit(engine, &event, NULL, c, 1, &outcome, &err), &err, TIDEWIRE_INVALID_EVENT, "key") &&
            outcome == TIDEWIRE_OUTCOME_REFUSED && tidewire_completions_take(c, done, 2, &count, NULL) == TIDEWIRE_OK && count == 0);
  event = event_of("b", "k");
  CHECK("completions: NULL",
        is(tidewire_submit(engine, &event, NULL, NULL, 1, &outcome, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "completions is NULL") &&
            is(tidewire_completions_take(NULL, done, 2, &count, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "completions is NULL") &&
            is(tidewire_completions_take(c, NULL, 2, &count, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "completions_out is NULL") &&
            is(tidewire_completions_take(c, done, 2, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "count_out is NULL") &&
            is(tidewire_completions_open(engine, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "completions_out is NULL"));
  CHECK("completions: the descriptor of NULL", tidewire_completions_fd(NULL) == -1);
  tidewire_completions_free(&c);
  CHECK("completions: freed", c == NULL);
  tidewire_completions_free(&c);
  tidewire_completions_free(NULL);

  static struct told told = {.lock = PTHREAD_MUTEX_INITIALIZER};
  tidewire_completions_options_t options = TIDEWIRE_COMPLETIONS_OPTIONS_INIT;
  options.callback = tell;
  options.callback_data = &told;
  CHECK("callback: open", is(tidewire_completions_open(engine, &options, &c, &err), &err, TIDEWIRE_OK, ""));
  for (uint64_t i = 0; i < 300; i++) tidewire_submit(engine, &event, NULL, c, i, NULL, NULL);
  CHECK("callback: there is nothing to take",
        is(tidewire_completions_take(c, done, 2, &count, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "has a callback") && count == 0);
  size_t n = 0;
  for (double until = now() + 30; n < 300 && now() < until;) {
    pthread_mutex_lock(&told.lock);
    n = told.count;
    pthread_mutex_unlock(&told.lock);
  }
  tidewire_completions_free(&c);
  CHECK("callback: 300 come, each once", told.count == 300 && all_once(told.seen, 300));
}

static void test_reserve(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_reservation_t *r = NULL, *none = (tidewire_reservation_t *)&err;
  tidewire_event_t event = event_of("b", "reserve");
  tidewire_commit_t fields = TIDEWIRE_COMMIT_INIT;
  char token[TIDEWIRE_TOKEN_BYTES];

  uint64_t before = stats_of(engine).accepted;
  CHECK("reserve", is(tidewire_reserve(engine, &event, NULL, &r, &err), &err, TIDEWIRE_OK, "") && r);
  CHECK("reserve: nothing is published", stats_of(engine).accepted == before);
  fields.etag = tidewire_str("0123456789abcdef0123456789abcdef");
  fields.size = 7;
  fields.has_size = 1;
  CHECK("commit", is(tidewire_commit(r, &fields, NULL, &err), &err, TIDEWIRE_OK, ""));
  CHECK("commit: it is published", stats_of(engine).accepted == before + 1);
  CHECK("commit: twice changes nothing",
        is(tidewire_commit(r, &fields, NULL, &err), &err, TIDEWIRE_OK, "") && stats_of(engine).accepted == before + 1);
  CHECK("abort after commit", is(tidewire_abort(r, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "was committed"));
  CHECK("token of a reservation without an intent",
        is(tidewire_reservation_token(r, token, &err), &err, TIDEWIRE_NOT_FOUND, "TIDEWIRE_INTENT_DURABLE"));
  tidewire_reservation_free(&r);
  CHECK("reservation: freed", r == NULL);
  tidewire_reservation_free(&r);
  tidewire_reservation_free(NULL);

  CHECK("abort", tidewire_reserve(engine, &event, NULL, &r, NULL) == TIDEWIRE_OK && is(tidewire_abort(r, &err), &err, TIDEWIRE_OK, ""));
  CHECK("abort: twice changes nothing", is(tidewire_abort(r, &err), &err, TIDEWIRE_OK, ""));
  CHECK("commit after abort", is(tidewire_commit(r, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "was aborted"));
  tidewire_reservation_free(&r);
  CHECK("free of an open one aborts it", tidewire_reserve(engine, &event, NULL, &r, NULL) == TIDEWIRE_OK);
  tidewire_reservation_free(&r);
  CHECK("aborted: nothing is published", stats_of(engine).accepted == before + 1);

  event = event_of("other", "k");
  CHECK("reserve: no rule wants it", is(tidewire_reserve(engine, &event, NULL, &none, &err), &err, TIDEWIRE_OK, "") && none == NULL);
  CHECK("commit and abort of that do nothing",
        is(tidewire_commit(none, &fields, NULL, &err), &err, TIDEWIRE_OK, "") && is(tidewire_abort(none, &err), &err, TIDEWIRE_OK, ""));

  event = event_of("b", "reserve");
  CHECK("reserve: open", tidewire_reserve(engine, &event, NULL, &r, NULL) == TIDEWIRE_OK);
  static char large[4096];
  memset(large, 'x', sizeof large);
  fields.content_type = tidewire_bytes(large, sizeof large);
  CHECK("commit: larger than was reserved", is(tidewire_commit(r, &fields, NULL, &err), &err, TIDEWIRE_INVALID_EVENT, ""));
  fields.content_type = tidewire_str("text/\xff");
  CHECK("commit: not UTF-8", is(tidewire_commit(r, &fields, NULL, &err), &err, TIDEWIRE_INVALID_EVENT, "content_type"));
  fields.content_type = tidewire_str("text/plain");
  fields.reserved[3] = 1;
  CHECK("commit: reserved bytes", is(tidewire_commit(r, &fields, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "reserved"));
  fields.reserved[3] = 0;
  fields.struct_size = 3;
  CHECK("commit: wrong size", is(tidewire_commit(r, &fields, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "fields.struct_size"));
  fields.struct_size = sizeof fields;
  CHECK("commit: it has stayed open",
        is(tidewire_commit(r, &fields, NULL, &err), &err, TIDEWIRE_OK, "") && stats_of(engine).accepted == before + 2);
  tidewire_reservation_free(&r);

  tidewire_reserve_options_t options = TIDEWIRE_RESERVE_OPTIONS_INIT;
  options.intent = 7;
  CHECK("reserve: unknown intent", is(tidewire_reserve(engine, &event, &options, &r, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "intent"));
  options.intent = TIDEWIRE_INTENT_NONE;
  options.reserved = 1;
  CHECK("reserve: reserved", is(tidewire_reserve(engine, &event, &options, &r, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "reserved"));
  options.reserved = 0;
  options.bytes_max = SIZE_MAX;
  CHECK("reserve: too large", is(tidewire_reserve(engine, &event, &options, &r, &err), &err, TIDEWIRE_INVALID_ARGUMENT, ""));
  CHECK("reserve: out NULL", is(tidewire_reserve(engine, &event, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "reservation_out"));
  event.key = tidewire_str("");
  CHECK("reserve: no key", is(tidewire_reserve(engine, &event, NULL, &r, &err), &err, TIDEWIRE_INVALID_EVENT, "key") && r == NULL);

  /* Through a queue of completions. */
  tidewire_completions_t *c = NULL;
  unsigned seen[3] = {0, 0, 0};
  event = event_of("b", "reserve");
  CHECK("commit_submit", tidewire_completions_open(engine, NULL, &c, NULL) == TIDEWIRE_OK &&
                             tidewire_reserve(engine, &event, NULL, &r, NULL) == TIDEWIRE_OK &&
                             is(tidewire_commit_submit(r, &fields, NULL, c, 2, &err), &err, TIDEWIRE_OK, ""));
  CHECK("commit_submit: it completes", take(c, 1, seen, 3) == 1 && seen[2] == 1);
  CHECK("commit_submit: of NULL nothing completes", is(tidewire_commit_submit(NULL, &fields, NULL, c, 1, &err), &err, TIDEWIRE_OK, "") && take(c, 0, seen, 3) == 0);
  tidewire_reservation_free(&r);
  tidewire_completions_free(&c);
}

static void test_reserve_batch(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_reservation_t *all[3] = {NULL, NULL, NULL};
  tidewire_event_t events[3] = {event_of("b", "x"), event_of("other", "y"), event_of("b", "z")};
  tidewire_commit_t fields[3] = {TIDEWIRE_COMMIT_INIT, TIDEWIRE_COMMIT_INIT, TIDEWIRE_COMMIT_INIT};
  uint64_t before = stats_of(engine).accepted;
  CHECK("reserve_batch", is(tidewire_reserve_batch(engine, events, 3, NULL, all, &err), &err, TIDEWIRE_OK, "") && all[0] && !all[1] && all[2]);
  CHECK("commit_batch", is(tidewire_commit_batch((const tidewire_reservation_t *const *)all, fields, 3, NULL, &err), &err, TIDEWIRE_OK, "") &&
                            stats_of(engine).accepted == before + 2);
  for (int i = 0; i < 3; i++) tidewire_reservation_free(&all[i]);
  events[2].key = tidewire_str("");
  CHECK("reserve_batch: one is not valid, so none is held",
        is(tidewire_reserve_batch(engine, events, 3, NULL, all, &err), &err, TIDEWIRE_INVALID_EVENT, "") && !all[0] && !all[1] && !all[2]);
  events[2] = event_of("b", "z");
  CHECK("commit_batch: without fields",
        tidewire_reserve_batch(engine, events, 3, NULL, all, NULL) == TIDEWIRE_OK &&
            is(tidewire_commit_batch((const tidewire_reservation_t *const *)all, NULL, 3, NULL, &err), &err, TIDEWIRE_OK, "") &&
            stats_of(engine).accepted == before + 4);
  for (int i = 0; i < 3; i++) tidewire_reservation_free(&all[i]);
  CHECK("reserve_batch: NULL",
        is(tidewire_reserve_batch(engine, NULL, 3, NULL, all, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "events") &&
            is(tidewire_reserve_batch(engine, events, 3, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "reservations_out") &&
            is(tidewire_commit_batch(NULL, NULL, 3, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "reservations"));
}

static void test_space(void) {
  tidewire_error_t *err = NULL;
  tidewire_engine_t *engine = NULL;
  tidewire_reservation_t *all[4096];
  size_t count = 0;
  CHECK("space: open", is(open_in(directory("space"), CONFIG_OF("ring_bytes = \"256KiB\"\n"), &engine, &err), &err, TIDEWIRE_OK, ""));
  tidewire_event_t event = event_of("b", "k");
  tidewire_reserve_options_t options = TIDEWIRE_RESERVE_OPTIONS_INIT;
  options.bytes_max = 4096;
  tidewire_result_t result = TIDEWIRE_OK;
  while (count < 4096 && (result = tidewire_reserve(engine, &event, &options, &all[count], &err)) == TIDEWIRE_OK) count++;
  CHECK("space: too much is reserved", count > 1 && count < 4096 && is(result, &err, TIDEWIRE_FULL, "reserved"));
  CHECK("space: what is reserved can be committed", is(tidewire_commit(all[0], NULL, NULL, &err), &err, TIDEWIRE_OK, ""));
  CHECK("space: then there is room for another", is(tidewire_reserve(engine, &event, &options, &all[count], &err), &err, TIDEWIRE_OK, ""));
  for (size_t i = 0; i <= count; i++) tidewire_reservation_free(&all[i]);
  CHECK("space: closed", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
}

struct doubt {
  unsigned count;
  char token[TIDEWIRE_TOKEN_BYTES];
  char key[32];
  uint64_t reserved_ns;
  uint64_t size;
  size_t metadata;
};

static void note_doubt(void *data, const char *token, uint64_t reserved_ns, const tidewire_event_t *event) {
  struct doubt *d = data;
  d->count++;
  snprintf(d->token, sizeof d->token, "%s", token);
  snprintf(d->key, sizeof d->key, "%.*s", (int)event->key.len, (const char *)event->key.data);
  d->reserved_ns = reserved_ns;
  d->size = event->has_size ? event->size : 0;
  d->metadata = event->metadata_count == 1 && memcmp(event->metadata[0].value.data, "billing", 7) == 0;
}

static void test_in_doubt(void) {
  tidewire_error_t *err = NULL;
  char dir[512];
  int told[2];
  snprintf(dir, sizeof dir, "%s", directory("doubt"));
  if (pipe(told)) return;
  pid_t child = fork();
  if (child == 0) {
    /* Dies between the operation and the commit. */
    tidewire_engine_t *engine = NULL;
    tidewire_reservation_t *r = NULL, *done = NULL;
    char token[TIDEWIRE_TOKEN_BYTES] = "";
    tidewire_reserve_options_t options = TIDEWIRE_RESERVE_OPTIONS_INIT;
    options.intent = TIDEWIRE_INTENT_DURABLE;
    tidewire_event_t event = event_of("b", "doubtful");
    tidewire_pair_t pair = {tidewire_str("owner"), tidewire_str("billing")};
    event.size = 77;
    event.has_size = 1;
    event.metadata = &pair;
    event.metadata_count = 1;
    tidewire_event_t other = event_of("b", "certain");
    if (open_in(dir, CONFIG, &engine, &err) || tidewire_reserve(engine, &event, &options, &r, &err) ||
        tidewire_reserve(engine, &other, &options, &done, &err) || tidewire_commit(done, NULL, NULL, &err) ||
        tidewire_reservation_token(r, token, &err))
      fprintf(stderr, "%s\n", tidewire_error_message(err));
    if (write(told[1], token, sizeof token) < 0) _exit(1);
    _exit(0);
  }
  char token[TIDEWIRE_TOKEN_BYTES] = "";
  int status = 0;
  CHECK("doubt: a process dies between operation and commit",
        read(told[0], token, sizeof token) == (ssize_t)sizeof token && strlen(token) == sizeof token - 1 &&
            waitpid(child, &status, 0) == child);
  close(told[0]);
  close(told[1]);

  tidewire_engine_t *engine = NULL;
  CHECK("doubt: open", is(open_in(dir, CONFIG, &engine, &err), &err, TIDEWIRE_OK, ""));
  struct doubt d = {0, "", "", 0, 0, 0};
  CHECK("doubt: it is listed, with its event",
        is(tidewire_in_doubt(engine, note_doubt, &d, &err), &err, TIDEWIRE_OK, "") && d.count == 1 && !strcmp(d.token, token) &&
            !strcmp(d.key, "doubtful") && d.reserved_ns > 0 && d.size == 77 && d.metadata == 1);
  uint64_t before = stats_of(engine).accepted;
  tidewire_event_t event = event_of("b", "another");
  CHECK("doubt: another event than was declared",
        is(tidewire_resolve_commit(engine, tidewire_str(token), &event, &err), &err, TIDEWIRE_INVALID_EVENT, ""));
  event = event_of("b", "doubtful");
  CHECK("doubt: committed", is(tidewire_resolve_commit(engine, tidewire_str(token), &event, &err), &err, TIDEWIRE_OK, ""));
  CHECK("doubt: once more", is(tidewire_resolve_commit(engine, tidewire_str(token), &event, &err), &err, TIDEWIRE_OK, "") &&
                                stats_of(engine).accepted == before + 1);
  CHECK("doubt: not aborted after that", is(tidewire_resolve_abort(engine, tidewire_str(token), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "committed"));
  d.count = 0;
  CHECK("doubt: none is left", tidewire_in_doubt(engine, note_doubt, &d, NULL) == TIDEWIRE_OK && d.count == 0);
  token[0] = token[0] == 'F' ? 'E' : 'F';
  CHECK("doubt: an unknown token", is(tidewire_resolve_abort(engine, tidewire_str(token), &err), &err, TIDEWIRE_NOT_FOUND, ""));
  CHECK("doubt: no token", is(tidewire_resolve_abort(engine, tidewire_str("x"), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "hex digits"));
  CHECK("doubt: NULL", is(tidewire_in_doubt(engine, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "callback is NULL"));
  CHECK("doubt: closed", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
}

static void test_append(void) {
  tidewire_error_t *err = NULL;
  tidewire_engine_t *engine = NULL;
  tidewire_outcome_t outcome = 9;
  uint64_t cursor = 99;
  char dir[512];
  snprintf(dir, sizeof dir, "%s", directory("append"));
  CHECK("append: open", is(open_in(dir, CONFIG, &engine, &err), &err, TIDEWIRE_OK, ""));
  CHECK("append: nothing is applied", is(tidewire_last_applied(engine, &cursor, &err), &err, TIDEWIRE_OK, "") && cursor == 0);
  tidewire_event_t event = event_of("b", "k");
  int ok = 1;
  for (uint64_t n = 1; n <= 100; n++)
    ok &= tidewire_append_at(engine, n, &event, NULL, &outcome, NULL) == TIDEWIRE_OK && outcome == TIDEWIRE_OUTCOME_ACCEPTED;
  CHECK("append: 100 are accepted", ok);
  CHECK("append: a repeat is known", is(tidewire_append_at(engine, 57, &event, NULL, &outcome, &err), &err, TIDEWIRE_OK, "") &&
                                         outcome == TIDEWIRE_OUTCOME_DUPLICATE);
  CHECK("append: cursor 0", is(tidewire_append_at(engine, 0, &event, NULL, &outcome, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "cursor") &&
                                outcome == TIDEWIRE_OUTCOME_REFUSED);
  CHECK("append: NULL", is(tidewire_last_applied(engine, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "cursor_out"));
  CHECK("append: closed", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
  CHECK("append: open again", is(open_in(dir, CONFIG, &engine, &err), &err, TIDEWIRE_OK, ""));
  CHECK("append: all is applied", is(tidewire_last_applied(engine, &cursor, &err), &err, TIDEWIRE_OK, "") && cursor == 100);
  CHECK("append: a repeat of an earlier run is known",
        is(tidewire_append_at(engine, 100, &event, NULL, &outcome, &err), &err, TIDEWIRE_OK, "") && outcome == TIDEWIRE_OUTCOME_DUPLICATE);
  CHECK("append: closed again", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
}

static void test_errors(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_event_t event = event_of("b", "k");
  event.event_type = TIDEWIRE_EVENT_NAMED;
  CHECK("error: refused", tidewire_publish(engine, &event, NULL, NULL, &err) == TIDEWIRE_INVALID_EVENT);
  CHECK("error: its place", !strcmp(tidewire_error_place(err), "event_type"));
  CHECK("error: its remedy", !strcmp(tidewire_error_remedy(err), "set event_type, or event_type_name"));
  tidewire_error_free(err);
  CHECK("error: of NULL", !strcmp(tidewire_error_place(NULL), "") && !strcmp(tidewire_error_remedy(NULL), ""));
}

/* An engine that closes has completed everything, and refuses what comes later. */
static void test_close(tidewire_engine_t **engine) {
  tidewire_error_t *err = NULL;
  tidewire_completions_t *c = NULL;
  tidewire_reservation_t *r = NULL;
  static unsigned seen[200];
  tidewire_event_t event = event_of("b", "last");
  int ok = tidewire_completions_open(*engine, NULL, &c, NULL) == TIDEWIRE_OK && tidewire_reserve(*engine, &event, NULL, &r, NULL) == TIDEWIRE_OK;
  for (uint64_t i = 0; i < 200; i++) ok &= tidewire_submit(*engine, &event, NULL, c, i, NULL, NULL) == TIDEWIRE_OK;
  CHECK("close: 200 are submitted", ok);
  CHECK("close: closed", is(tidewire_close(engine, 0, &err), &err, TIDEWIRE_OK, ""));
  CHECK("close: all completed", take(c, 200, seen, 200) == 200 && all_once(seen, 200));
  CHECK("close: a commit comes too late", is(tidewire_commit(r, NULL, NULL, &err), &err, TIDEWIRE_CLOSED, ""));
  tidewire_reservation_free(&r);
  tidewire_completions_free(&c);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  scratch = argv[1];
  /* Before there are threads. */
  test_in_doubt();
  tidewire_error_t *err = NULL;
  tidewire_engine_t *engine = NULL;
  CHECK("open", is(open_in(directory("publish"), DEDUP, &engine, &err), &err, TIDEWIRE_OK, ""));
  if (engine) {
    test_batch(engine);
  test_json(engine);
    test_dedup(engine);
    test_completions(engine);
    test_reserve(engine);
    test_reserve_batch(engine);
    test_errors(engine);
    test_close(&engine);
  }
  test_space();
  test_append();
  printf("%u passed, %u failed\n", passed, failed);
  return failed > 0;
}
