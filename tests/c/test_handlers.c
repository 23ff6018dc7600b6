/* Destinations that the host serves itself, from C.
 *
 *   test_handlers SCRATCH-DIRECTORY
 *
 * Prints a line per check, then `N passed, M failed`. Nothing has to listen anywhere.
 */
#include <stdlib.h>
#include <time.h>

#include <pthread.h>

#include "check.h"

#define OWN                                                                                                            \
  "[engine]\nshards = 2\nclose_timeout = \"5s\"\n"                                                                     \
  "[[destination]]\nname = \"own\"\ntype = \"custom\"\nhandler = \"mine\"\nconcurrency = 4\n"                          \
  "batch = { events_max = 5, linger = \"20ms\" }\n"                                                                    \
  "retry = { backoff_min = \"10ms\", backoff_max = \"20ms\", poison_attempts = 1 }\n"                                  \
  "breaker = { consecutive_failures = 1000000, calls_min = 1000000 }\n"                                                \
  "[[rule]]\nid = \"created\"\nbucket = \"b\"\nevents = [\"s3:ObjectCreated:*\"]\ndestinations = [\"own\"]\n"

enum { SECOND = 1000, EVENTS = 40, KEPT_MAX = 64 };

/* What a handler has seen, and what it does with a batch. */
struct host {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  /* Answers a batch, or returns 0 to keep it. */
  int (*answer)(struct host *, tidewire_batch_t **);
  tidewire_engine_t *engine;
  tidewire_batch_t *kept[KEPT_MAX];
  unsigned batches, events, keeps, released, wrong;
  unsigned came[EVENTS];
  char first_id[EVENTS][64];
};

static struct host *host_new(int (*answer)(struct host *, tidewire_batch_t **)) {
  struct host *host = calloc(1, sizeof *host);
  pthread_mutex_init(&host->lock, NULL);
  pthread_cond_init(&host->changed, NULL);
  host->answer = answer;
  return host;
}

static void host_free(struct host *host) {
  pthread_cond_destroy(&host->changed);
  pthread_mutex_destroy(&host->lock);
  free(host);
}

/* The number in the key `key-N` of a record. */
static int number_of(tidewire_bytes_t record) {
  char text[2048];
  if (record.len >= sizeof text) return -1;
  memcpy(text, record.data, record.len);
  text[record.len] = 0;
  const char *key = strstr(text, "key-");
  int n = key ? atoi(key + 4) : -1;
  return n < EVENTS ? n : -1;
}

/* Looks at everything that a batch has; the number of what is wrong with it. */
static unsigned look(struct host *host, const tidewire_batch_t *batch) {
  unsigned wrong = 0;
  tidewire_batch_info_t info = TIDEWIRE_BATCH_INFO_INIT;
  wrong += tidewire_batch_info(batch, &info, NULL) != TIDEWIRE_OK;
  wrong += info.destination.len != 3 || memcmp(info.destination.data, "own", 3) != 0;
  wrong += info.content_type.len == 0 || info.events == 0 || info.events > 5 || info.left_ms == 0 || info.left_ms > 15000;
  tidewire_bytes_t pieces[64];
  size_t count = 0, len = 0;
  char body[16384];
  wrong += info.pieces > 64 || info.body_bytes >= sizeof body;
  wrong += tidewire_batch_body(batch, pieces, 64, &count, NULL) != TIDEWIRE_OK || count != info.pieces;
  for (size_t n = 0; n < count; n++) {
    memcpy(body + len, pieces[n].data, pieces[n].len);
    len += pieces[n].len;
  }
  body[len] = 0;
  wrong += len != info.body_bytes || strncmp(body, "{\"Records\":[", 12) != 0 || strcmp(body + len - 2, "]}") != 0;
  size_t records = 0;
  for (const char *at = body; (at = strstr(at, "\"eventVersion\"")); at++) records++;
  wrong += records != info.events;
  for (size_t n = 0; n < info.events; n++) {
    tidewire_batch_event_t event = TIDEWIRE_BATCH_EVENT_INIT;
    wrong += tidewire_batch_event(batch, n, &event, NULL) != TIDEWIRE_OK;
    int key = number_of(event.record);
    if (key < 0 || strlen(event.id) != 38 || !strstr(body, event.id)) {
      wrong++;
      continue;
    }
    if (host->came[key]++ == 0)
      snprintf(host->first_id[key], sizeof host->first_id[key], "%s", event.id);
    else
      wrong += strcmp(host->first_id[key], event.id) != 0;
    host->events++;
  }
  return wrong;
}

static void handle(void *data, tidewire_batch_t *batch) {
  struct host *host = data;
  pthread_mutex_lock(&host->lock);
  host->wrong += look(host, batch);
  host->batches++;
  if (!host->answer(host, &batch)) {
    if (host->keeps < KEPT_MAX)
      host->kept[host->keeps++] = batch;
    else
      tidewire_batch_free(&batch);
  }
  pthread_cond_broadcast(&host->changed);
  pthread_mutex_unlock(&host->lock);
}

static void released(void *data) {
  struct host *host = data;
  pthread_mutex_lock(&host->lock);
  host->released++;
  pthread_cond_broadcast(&host->changed);
  pthread_mutex_unlock(&host->lock);
}

/* Waits until `*count` is so much, at most 20 seconds. */
static int reaches(struct host *host, const unsigned *count, unsigned wanted) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 20;
  pthread_mutex_lock(&host->lock);
  int late = 0;
  while (*count < wanted && !late) late = pthread_cond_timedwait(&host->changed, &host->lock, &until) != 0;
  int ok = *count >= wanted;
  if (!ok) printf("     %u of %u\n", *count, wanted);
  pthread_mutex_unlock(&host->lock);
  return ok;
}

static tidewire_result_t serve(tidewire_engine_t *engine, const char *name, struct host *host, tidewire_error_t **err) {
  tidewire_handler_t handler = TIDEWIRE_HANDLER_INIT;
  handler.callback = handle;
  handler.callback_data = host;
  handler.release = released;
  return tidewire_handler_set(engine, tidewire_str(name), &handler, err);
}

static void publish(tidewire_engine_t *engine, int first, int count) {
  for (int n = first; n < first + count; n++) {
    char key[32];
    snprintf(key, sizeof key, "key-%d", n);
    tidewire_event_t event = event_of("b", key);
    tidewire_publish(engine, &event, NULL, NULL, NULL);
  }
}

static tidewire_engine_t *open_own(const char *dir) {
  tidewire_engine_t *engine = NULL;
  tidewire_error_t *err = NULL;
  if (open_in(directory(dir), OWN, &engine, &err) != TIDEWIRE_OK) printf("     %s\n", tidewire_error_message(err));
  tidewire_error_free(err);
  return engine;
}

static tidewire_stats_t stats_of(const tidewire_engine_t *engine) {
  tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
  tidewire_stats(engine, &stats, NULL);
  return stats;
}

static int accept_all(struct host *host, tidewire_batch_t **batch) {
  (void)host;
  tidewire_batch_accept(batch);
  return *batch == NULL;
}

static int keep(struct host *host, tidewire_batch_t **batch) {
  (void)host, (void)batch;
  return 0;
}

static void a_function_takes_batches(void) {
  tidewire_engine_t *engine = open_own("takes");
  tidewire_error_t *err = NULL;
  struct host *host = host_new(accept_all);
  publish(engine, 0, 10);
  CHECK("events wait for a handler", is(tidewire_flush(engine, 100, &err), &err, TIDEWIRE_TIMEOUT, "still wait"));
  CHECK("a handler is set", is(serve(engine, "mine", host, &err), &err, TIDEWIRE_OK, ""));
  publish(engine, 10, EVENTS - 10);
  CHECK("it takes everything", is(tidewire_flush(engine, 20 * SECOND, &err), &err, TIDEWIRE_OK, ""));
  int each = 1;
  for (int n = 0; n < EVENTS; n++) each = each && host->came[n] == 1;
  CHECK("each event came once", each && host->events == EVENTS);
  CHECK("batches have what they should", host->wrong == 0);
  CHECK("they are delivered", stats_of(engine).delivered == EVENTS);
  CHECK("the data are not released while it serves", host->released == 0);
  CHECK("it closes", is(tidewire_close(&engine, 5 * SECOND, &err), &err, TIDEWIRE_OK, ""));
  CHECK("closing releases the data", host->released == 1);
  host_free(host);
}

static void *answer_later(void *data) {
  tidewire_batch_t *batch = data;
  tidewire_batch_accept(&batch);
  return NULL;
}

static void answers_come_later(void) {
  tidewire_engine_t *engine = open_own("later");
  tidewire_error_t *err = NULL;
  struct host *host = host_new(keep);
  serve(engine, "mine", host, NULL);
  publish(engine, 0, 20);
  CHECK("a handler that keeps batches gets more", reaches(host, &host->keeps, 2));
  CHECK("what is kept is not delivered", stats_of(engine).delivered == 0);
  /* From other threads, the last one first, while more come. */
  unsigned answered = 0;
  while (answered < 20 && reaches(host, &host->keeps, 1)) {
    pthread_mutex_lock(&host->lock);
    tidewire_batch_t *batch = host->kept[--host->keeps];
    pthread_mutex_unlock(&host->lock);
    tidewire_batch_info_t info = TIDEWIRE_BATCH_INFO_INIT;
    tidewire_batch_info(batch, &info, NULL);
    answered += (unsigned)info.events;
    pthread_t thread;
    pthread_create(&thread, NULL, answer_later, batch);
    pthread_join(thread, NULL);
  }
  CHECK("all are answered", answered == 20);
  CHECK("and delivered", is(tidewire_flush(engine, 20 * SECOND, &err), &err, TIDEWIRE_OK, "") && host->events == 20);
  publish(engine, 20, 1);
  CHECK("one more comes", reaches(host, &host->keeps, 1));
  tidewire_close(&engine, 0, NULL);
  tidewire_batch_accept(&host->kept[0]);
  CHECK("an answer after the engine is closed frees the batch", host->kept[0] == NULL && host->wrong == 0);
  engine = open_own("later");
  host->answer = accept_all;
  serve(engine, "mine", host, NULL);
  CHECK("what was not answered in time comes again", is(tidewire_flush(engine, 20 * SECOND, &err), &err, TIDEWIRE_OK, ""));
  CHECK("with the same id", host->came[20] == 2 && host->wrong == 0);
  tidewire_close(&engine, 0, NULL);
  host_free(host);
}

/* Takes no event the first time that it comes. */
static int not_at_once(struct host *host, tidewire_batch_t **batch) {
  tidewire_batch_info_t info = TIDEWIRE_BATCH_INFO_INIT;
  tidewire_batch_info(*batch, &info, NULL);
  size_t again_for[8], count = 0;
  int again = 0;
  for (size_t n = 0; n < info.events; n++) {
    tidewire_batch_event_t event = TIDEWIRE_BATCH_EVENT_INIT;
    tidewire_batch_event(*batch, n, &event, NULL);
    int key = number_of(event.record);
    if (host->came[key] == 1)
      again_for[count++] = n;
    else
      again = key;
  }
  switch (count == info.events ? (host->batches + (unsigned)again) % 4 : 0) {
    case 0: return tidewire_batch_accept_but(batch, again_for, count, tidewire_str("not yet"), NULL) == TIDEWIRE_OK;
    case 1: return tidewire_batch_retry(batch, tidewire_str("not now"), NULL) == TIDEWIRE_OK;
    case 2: return tidewire_batch_retry_after(batch, 5, tidewire_bytes(NULL, 0), NULL) == TIDEWIRE_OK;
    default: tidewire_batch_free(batch); return *batch == NULL;
  }
}

static int refuse(struct host *host, tidewire_batch_t **batch) {
  (void)host;
  return tidewire_batch_refuse(batch, tidewire_str("never"), NULL) == TIDEWIRE_OK && *batch == NULL;
}

static void what_is_not_taken_comes_again(void) {
  tidewire_engine_t *engine = open_own("again");
  tidewire_error_t *err = NULL;
  struct host *host = host_new(not_at_once);
  serve(engine, "mine", host, NULL);
  publish(engine, 0, EVENTS);
  CHECK("everything is taken in the end", is(tidewire_flush(engine, 30 * SECOND, &err), &err, TIDEWIRE_OK, ""));
  int twice = 1;
  for (int n = 0; n < EVENTS; n++) twice = twice && host->came[n] >= 2;
  CHECK("each event came again, with its id", twice && host->wrong == 0 && stats_of(engine).delivered == EVENTS);
  pthread_mutex_lock(&host->lock);
  host->answer = refuse;
  pthread_mutex_unlock(&host->lock);
  publish(engine, 0, 3);
  CHECK("what is refused is given up", is(tidewire_flush(engine, 30 * SECOND, &err), &err, TIDEWIRE_OK, ""));
  CHECK("and a dead letter", stats_of(engine).dead_lettered == 3);
  tidewire_close(&engine, 0, NULL);
  host_free(host);
}

static void handlers_take_turns(void) {
  tidewire_engine_t *engine = open_own("turns");
  tidewire_error_t *err = NULL;
  struct host *first = host_new(accept_all), *second = host_new(accept_all);
  serve(engine, "mine", first, NULL);
  publish(engine, 0, 5);
  tidewire_flush(engine, 20 * SECOND, NULL);
  CHECK("another takes its place", is(serve(engine, "mine", second, &err), &err, TIDEWIRE_OK, ""));
  CHECK("the first is released", reaches(first, &first->released, 1) && first->events == 5);
  publish(engine, 5, 5);
  tidewire_flush(engine, 20 * SECOND, NULL);
  CHECK("the second gets what comes then", second->events == 5 && first->events == 5);
  CHECK("it is taken away", is(tidewire_handler_set(engine, tidewire_str("mine"), NULL, &err), &err, TIDEWIRE_OK, ""));
  CHECK("and released", reaches(second, &second->released, 1));
  publish(engine, 10, 1);
  CHECK("events wait", is(tidewire_flush(engine, 100, &err), &err, TIDEWIRE_TIMEOUT, "still wait"));
  CHECK("taking away what is not there does no harm",
        is(tidewire_handler_set(engine, tidewire_str("mine"), NULL, &err), &err, TIDEWIRE_OK, ""));
  tidewire_close(&engine, 0, NULL);
  CHECK("each was released once", first->released == 1 && second->released == 1);
  host_free(first);
  host_free(second);
}

static int close_from_within(struct host *host, tidewire_batch_t **batch) {
  tidewire_batch_accept(batch);
  host->wrong += tidewire_close(&host->engine, 100, NULL) != TIDEWIRE_OK;
  return 1;
}

static void an_engine_is_closed_from_within(void) {
  tidewire_engine_t *engine = open_own("within");
  struct host *host = host_new(close_from_within);
  host->engine = engine;
  serve(engine, "mine", host, NULL);
  publish(engine, 0, 1);
  CHECK("a handler closes the engine", reaches(host, &host->released, 1) && host->wrong == 0 && host->engine == NULL);
  host_free(host);
}

static void bad_input(void) {
  tidewire_engine_t *engine = open_own("bad");
  tidewire_error_t *err = NULL;
  struct host *host = host_new(keep);
  CHECK("no engine", is(serve(NULL, "mine", host, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
  CHECK("no name", is(serve(engine, "", host, &err), &err, TIDEWIRE_INVALID_CONFIG, "name"));
  CHECK("a name that is none", is(serve(engine, "a b", host, &err), &err, TIDEWIRE_INVALID_CONFIG, "a b"));
  CHECK("what is not set is not released", host->released == 0);
  tidewire_handler_t handler = TIDEWIRE_HANDLER_INIT;
  CHECK("no callback", is(tidewire_handler_set(engine, tidewire_str("mine"), &handler, &err), &err,
                          TIDEWIRE_INVALID_ARGUMENT, "handler.callback is NULL"));
  handler.struct_size = 8;
  CHECK("a size that is none", is(tidewire_handler_set(engine, tidewire_str("mine"), &handler, &err), &err,
                                  TIDEWIRE_INVALID_ARGUMENT, "TIDEWIRE_HANDLER_INIT"));
  serve(engine, "mine", host, NULL);
  publish(engine, 0, 1);
  CHECK("a batch comes", reaches(host, &host->keeps, 1));
  tidewire_batch_t *batch = host->kept[0], *none = NULL;

  tidewire_batch_info_t info = TIDEWIRE_BATCH_INFO_INIT;
  tidewire_batch_event_t event = TIDEWIRE_BATCH_EVENT_INIT;
  tidewire_pair_t header;
  tidewire_bytes_t piece;
  size_t count = 7;
  CHECK("info of no batch", is(tidewire_batch_info(NULL, &info, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "batch is NULL"));
  CHECK("info to nowhere", is(tidewire_batch_info(batch, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "info_out is NULL"));
  CHECK("an event of no batch", is(tidewire_batch_event(NULL, 0, &event, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "batch is NULL"));
  CHECK("an event that is not there", is(tidewire_batch_event(batch, 1, &event, &err), &err, TIDEWIRE_INVALID_ARGUMENT,
                                         "event is 1, but the batch has 1 events"));
  CHECK("a header that is not there", is(tidewire_batch_header(batch, (size_t)-1, &header, &err), &err,
                                         TIDEWIRE_INVALID_ARGUMENT, "the batch has 0 headers"));
  CHECK("a header to nowhere",
        is(tidewire_batch_header(batch, 0, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "header_out is NULL"));
  CHECK("a body to nowhere", is(tidewire_batch_body(batch, NULL, 1, &count, &err), &err, TIDEWIRE_INVALID_ARGUMENT,
                                "pieces_out is NULL") && count == 0);
  CHECK("a body of no count", is(tidewire_batch_body(batch, &piece, 1, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT,
                                 "count_out is NULL"));
  CHECK("the beginning of a body",
        is(tidewire_batch_body(batch, &piece, 1, &count, &err), &err, TIDEWIRE_OK, "") && count == 1 && piece.len > 0);

  size_t not_there = 1;
  CHECK("no list of what failed", is(tidewire_batch_accept_but(&batch, NULL, 1, tidewire_str(""), &err), &err,
                                     TIDEWIRE_INVALID_ARGUMENT, "failed is NULL"));
  CHECK("a list that cannot be so long", is(tidewire_batch_accept_but(&batch, &not_there, (size_t)-1, tidewire_str(""), &err),
                                            &err, TIDEWIRE_INVALID_ARGUMENT, "more than"));
  CHECK("an event that failed but is not there", is(tidewire_batch_accept_but(&batch, &not_there, 1, tidewire_str(""), &err),
                                                    &err, TIDEWIRE_INVALID_ARGUMENT, "failed is 1"));
  CHECK("a reason that is no text", is(tidewire_batch_retry(&batch, tidewire_str("\xff"), &err), &err,
                                       TIDEWIRE_INVALID_ARGUMENT, "reason is not UTF-8"));
  CHECK("a reason of NULL",
        is(tidewire_batch_refuse(&batch, tidewire_bytes(NULL, 3), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "reason is NULL"));
  CHECK("it is still there to be answered", batch == host->kept[0] && stats_of(engine).delivered == 0);
  tidewire_batch_accept(&batch);
  CHECK("and is answered", batch == NULL && is(tidewire_flush(engine, 20 * SECOND, &err), &err, TIDEWIRE_OK, "") &&
                               stats_of(engine).delivered == 1);
  tidewire_batch_accept(&batch);
  tidewire_batch_accept(NULL);
  tidewire_batch_free(&none);
  tidewire_batch_free(NULL);
  CHECK("a second answer does nothing", is(tidewire_batch_retry(&batch, tidewire_str(""), &err), &err, TIDEWIRE_OK, "") &&
                                            is(tidewire_batch_accept_but(NULL, NULL, 0, tidewire_str(""), &err), &err,
                                               TIDEWIRE_OK, "") &&
                                            host->events == 1);
  tidewire_close(&engine, 0, NULL);
  CHECK("a closed engine has released it", reaches(host, &host->released, 1));
  host_free(host);
}

/* What the host has to fetch. */
struct store {
  unsigned calls;
  tidewire_details_wanted_t wanted;
  int answer;
  int no_list;
};

static int fetch(void *data, tidewire_details_wanted_t wanted, tidewire_details_t *details) {
  static tidewire_pair_t metadata[] = {{{NULL, 0}, {NULL, 0}}}, tags[40];
  struct store *store = data;
  store->calls++;
  store->wanted = wanted;
  if (details->metadata || details->metadata_count || details->tags || details->tags_count) store->calls += 1000;
  metadata[0].name = tidewire_str("owner");
  metadata[0].value = tidewire_str("fetched-owner");
  for (size_t n = 0; n < 40; n++) tags[n] = metadata[0];
  tags[39].name = tidewire_str("colour");
  tags[39].value = tidewire_str("fetched-blue");
  details->metadata = metadata;
  details->metadata_count = 1;
  details->tags = store->no_list ? NULL : tags + 39;
  details->tags_count = 1;
  return store->answer;
}

/* Keeps the record of the first event. */
static char last_record[4096];

static int note_record(struct host *host, tidewire_batch_t **batch) {
  (void)host;
  tidewire_batch_event_t event = TIDEWIRE_BATCH_EVENT_INIT;
  tidewire_batch_event(*batch, 0, &event, NULL);
  snprintf(last_record, sizeof last_record, "%.*s", (int)event.record.len, (const char *)event.record.data);
  tidewire_batch_accept(batch);
  return 1;
}

static void details_are_fetched(void) {
  enum { BOTH = TIDEWIRE_DETAILS_METADATA | TIDEWIRE_DETAILS_TAGS };
  tidewire_engine_t *engine = open_own("details");
  tidewire_error_t *err = NULL;
  struct host *host = host_new(note_record);
  struct store store = {0, 0, 0, 0};
  serve(engine, "mine", host, NULL);
  tidewire_outcome_t outcome = 99;
  tidewire_event_t event = event_of("b", "key-1");
  event.fetch = fetch;
  event.fetch_data = &store;
  CHECK("details: wanted by a rule", tidewire_details_wanted(engine, &event) == BOTH && store.calls == 0);
  tidewire_publish(engine, &event, NULL, NULL, NULL);
  tidewire_flush(engine, 20 * SECOND, NULL);
  CHECK("details: fetched once", store.calls == 1 && store.wanted == BOTH);
  CHECK("details: in the record", strstr(last_record, "fetched-owner") && strstr(last_record, "fetched-blue"));

  tidewire_pair_t own = {tidewire_str("colour"), tidewire_str("own-green")};
  event.tags = &own;
  event.tags_count = 1;
  tidewire_publish(engine, &event, NULL, NULL, NULL);
  tidewire_flush(engine, 20 * SECOND, NULL);
  CHECK("details: only those that are not there", store.calls == 2 && store.wanted == TIDEWIRE_DETAILS_METADATA &&
                                                      strstr(last_record, "own-green") && strstr(last_record, "fetched-owner") &&
                                                      !strstr(last_record, "fetched-blue"));
  event.metadata = &own;
  event.metadata_count = 1;
  tidewire_publish(engine, &event, NULL, NULL, NULL);
  event.bucket = tidewire_str("nobody-wants-it");
  event.tags_count = event.metadata_count = 0;
  CHECK("details: of no use", tidewire_details_wanted(engine, &event) == TIDEWIRE_DETAILS_NONE);
  tidewire_publish(engine, &event, NULL, &outcome, NULL);
  CHECK("details: not fetched for nothing", outcome == TIDEWIRE_OUTCOME_NO_MATCH && store.calls == 2);

  event.bucket = tidewire_str("b");
  tidewire_event_t two[] = {event, event};
  CHECK("details: of each of several",
        is(tidewire_publish_batch(engine, two, 2, NULL, NULL, &err), &err, TIDEWIRE_OK, "") && store.calls == 4);
  tidewire_reservation_t *reservation = NULL;
  tidewire_reserve(engine, &event, NULL, &reservation, NULL);
  CHECK("details: not of what is not there yet", reservation && store.calls == 4);
  tidewire_reservation_free(&reservation);
  tidewire_stats_t before = stats_of(engine);
  store.answer = 5;
  CHECK("details: that cannot be fetched", is(tidewire_publish(engine, &event, NULL, &outcome, &err), &err,
                                              TIDEWIRE_INVALID_EVENT, "it answered 5") && outcome == TIDEWIRE_OUTCOME_REFUSED);
  store.answer = 0;
  store.no_list = 1;
  CHECK("details: a list that is none",
        is(tidewire_publish(engine, &event, NULL, &outcome, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "tags is NULL"));
  CHECK("details: nothing is published without them", stats_of(engine).accepted == before.accepted);
  store.no_list = 0;

  tidewire_filter_t *filter = NULL;
  tidewire_filter_parse(TIDEWIRE_FILTER_JSON, tidewire_str("{\"tags\": {\"colour\": \"fetched-blue\"}}"), &filter, &err);
  CHECK("details: a filter", is(err ? tidewire_error_code(err) : TIDEWIRE_OK, &err, TIDEWIRE_OK, ""));
  bool matches = false;
  tidewire_filter_matches(filter, &event, &matches, NULL);
  CHECK("details: a filter that stands alone has them", matches);
  tidewire_filter_free(filter);
  CHECK("details: all are wanted if anything is wrong",
        tidewire_details_wanted(NULL, &event) == BOTH && tidewire_details_wanted(engine, NULL) == BOTH);
  tidewire_close(&engine, 0, NULL);
  host_free(host);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  scratch = argv[1];
  a_function_takes_batches();
  answers_come_later();
  what_is_not_taken_comes_again();
  handlers_take_turns();
  an_engine_is_closed_from_within();
  bad_input();
  details_are_fetched();
  printf("%u passed, %u failed\n", passed, failed);
  return failed != 0;
}
