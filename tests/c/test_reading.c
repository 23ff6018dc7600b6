/* Tails of the log and groups of consumers, from C.
 *
 *   test_reading SCRATCH-DIRECTORY
 *
 * Prints a line per check, then `N passed, M failed`. Nothing has to listen anywhere.
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <pthread.h>

#include "check.h"

/* Everything is kept, also what no rule wants. */
#define KEPT                                                                                                           \
  "[engine]\nshards = 2\nevent_types = [\"Acme:Made\"]\n"                                                   \
  "[engine.retention]\nkeep = \"all\"\nage_max = \"1h\"\n"

enum { SECOND = 1000 };

static tidewire_bytes_t none(void) { return tidewire_bytes(NULL, 0); }

static void publish(tidewire_engine_t *engine, const char *bucket, const char *key) {
  tidewire_event_t event = event_of(bucket, key);
  tidewire_pair_t tag = {tidewire_str("colour"), tidewire_str("blue")};
  event.tags = &tag;
  event.tags_count = 1;
  event.has_size = 1;
  event.size = 7;
  tidewire_publish(engine, &event, NULL, NULL, NULL);
}

static tidewire_item_t item_of(const tidewire_items_t *items, size_t n) {
  tidewire_item_t item = TIDEWIRE_ITEM_INIT;
  tidewire_items_get(items, n, &item, NULL);
  return item;
}

static int has_key(const tidewire_item_t *item, const char *key) {
  return item->event && item->event->key.len == strlen(key) && !memcmp(item->event->key.data, key, strlen(key));
}

/* Reads until so many have come, or nothing comes for 10 seconds. The keys, with spaces between, and how many gaps. */
static const char *keys(tidewire_tail_t *tail, size_t count) {
  static char text[4096];
  size_t len = 0, got = 0;
  text[0] = 0;
  while (got < count) {
    tidewire_items_t *items = NULL;
    if (tidewire_tail_next(tail, count - got, 10 * SECOND, &items, NULL) != TIDEWIRE_OK || !tidewire_items_count(items)) break;
    for (size_t n = 0; n < tidewire_items_count(items); n++, got++) {
      tidewire_item_t item = item_of(items, n);
      if (!item.event) continue;
      len += (size_t)snprintf(text + len, sizeof text - len, "%s%.*s", len ? " " : "", (int)item.event->key.len,
                              (const char *)item.event->key.data);
    }
    tidewire_items_free(&items);
  }
  return text;
}

static int nothing_more(tidewire_tail_t *tail) {
  tidewire_items_t *items = NULL;
  int ok = tidewire_tail_next(tail, 5, 0, &items, NULL) == TIDEWIRE_OK && items && tidewire_items_count(items) == 0;
  tidewire_items_free(&items);
  return ok && items == NULL;
}

static tidewire_tail_t *tail_of(tidewire_engine_t *engine, const tidewire_read_options_t *options) {
  tidewire_tail_t *tail = NULL;
  tidewire_error_t *err = NULL;
  if (tidewire_tail_open(engine, options, &tail, &err) != TIDEWIRE_OK) printf("     %s\n", tidewire_error_message(err));
  tidewire_error_free(err);
  return tail;
}

struct later {
  tidewire_engine_t *engine;
  const char *key;
};

static void *publish_later(void *data) {
  struct later *later = data;
  struct timespec pause = {0, 100000000};
  nanosleep(&pause, NULL);
  publish(later->engine, "b", later->key);
  return NULL;
}

static void test_tails(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_tail_t *now = tail_of(engine, NULL);
  CHECK("tail: nothing yet", nothing_more(now));
  publish(engine, "b", "one");
  publish(engine, "b", "one");
  publish(engine, "other", "two");

  tidewire_items_t *items = NULL;
  CHECK("tail: the next one", is(tidewire_tail_next(now, 1, 10 * SECOND, &items, &err), &err, TIDEWIRE_OK, "") && tidewire_items_count(items) == 1);
  tidewire_item_t item = TIDEWIRE_ITEM_INIT;
  CHECK("tail: it is as it was published", is(tidewire_items_get(items, 0, &item, &err), &err, TIDEWIRE_OK, "") && item.event &&
                                              item.event->struct_size == sizeof(tidewire_event_t) && item.event->has_size &&
                                              item.event->size == 7 && item.event->tags_count == 1 &&
                                              !memcmp(item.event->tags[0].value.data, "blue", 4) &&
                                              item.event->event_type == TIDEWIRE_EVENT_OBJECT_CREATED_PUT);
  CHECK("tail: its place in the log", strlen(item.id) > 10 && item.gap == TIDEWIRE_GAP_NONE && item.shard < 2 && item.sequence > 0 &&
                                        item.sequence_last == item.sequence && item.clock_ns > UINT64_C(1700000000) * 1000000000 &&
                                        item.deliveries == 0);
  CHECK("tail: there is no second item", is(tidewire_items_get(items, 1, &item, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "no item 1"));
  item.struct_size = 3;
  CHECK("tail: an item of another size", is(tidewire_items_get(items, 0, &item, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "TIDEWIRE_ITEM_INIT"));
  tidewire_items_free(&items);
  CHECK("tail: items are freed once", items == NULL);
  tidewire_items_free(&items);
  tidewire_items_free(NULL);
  keys(now, 2);
  CHECK("tail: then nothing", nothing_more(now));

  tidewire_read_options_t options = TIDEWIRE_READ_OPTIONS_INIT;
  options.from = TIDEWIRE_FROM_BEGINNING;
  options.bucket = tidewire_str("other");
  tidewire_tail_t *of_bucket = tail_of(engine, &options);
  CHECK("tail: of a bucket, from the beginning", !strcmp(keys(of_bucket, 1), "two") && nothing_more(of_bucket));
  options.bucket = none();
  options.events = tidewire_str("s3:ObjectRemoved:* Acme:Made");
  tidewire_tail_t *of_types = tail_of(engine, &options);
  tidewire_event_t made = event_of("b", "made");
  made.event_type = TIDEWIRE_EVENT_NAMED;
  made.event_type_name = tidewire_str("Acme:Made");
  tidewire_publish(engine, &made, NULL, NULL, NULL);
  CHECK("tail: of types, also those of the configuration", !strcmp(keys(of_types, 1), "made") && nothing_more(of_types));
  options.events = none();
  tidewire_filter_t *filter = NULL;
  tidewire_filter_parse(TIDEWIRE_FILTER_JSON, tidewire_str("{\"prefix\": \"on\"}"), &filter, NULL);
  options.filter = filter;
  tidewire_tail_t *filtered = tail_of(engine, &options);
  tidewire_filter_free(filter);
  CHECK("tail: of a filter, which may be freed", !strcmp(keys(filtered, 2), "one one") && nothing_more(filtered));

  char *position = NULL;
  size_t len = 0;
  keys(now, 1);
  CHECK("tail: where it is", is(tidewire_tail_position(now, &position, &len, &err), &err, TIDEWIRE_OK, "") && !strncmp(position, "tw1:", 4) && strlen(position) == len);
  publish(engine, "b", "three");
  options.filter = NULL;
  options.from = TIDEWIRE_FROM_POSITION;
  options.position = tidewire_str(position);
  tidewire_tail_t *again = tail_of(engine, &options);
  CHECK("tail: goes on from there", !strcmp(keys(again, 1), "three") && nothing_more(again));
  tidewire_string_free(position);
  options.position = none();

  struct later later = {engine, "later"};
  pthread_t thread;
  pthread_create(&thread, NULL, publish_later, &later);
  CHECK("tail: waits for what is published", !strcmp(keys(again, 1), "later"));
  pthread_join(thread, NULL);
  options.from = TIDEWIRE_FROM_TIME;
  options.from_ns = (uint64_t)time(NULL) * 1000000000 + UINT64_C(3600000000000);
  tidewire_tail_t *future = tail_of(engine, &options);
  CHECK("tail: from a time", nothing_more(future));

  tidewire_tail_t *none_made = (tidewire_tail_t *)engine;
  options.from = 9;
  CHECK("tail: an unknown beginning", is(tidewire_tail_open(engine, &options, &none_made, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "TIDEWIRE_FROM_") && !none_made);
  options.from = TIDEWIRE_FROM_POSITION;
  options.position = tidewire_str("tw1:x");
  CHECK("tail: a position that is none", is(tidewire_tail_open(engine, &options, &none_made, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "no position"));
  options.from = TIDEWIRE_FROM_NOW;
  options.events = tidewire_str("s3:ObjectCreatd:*");
  CHECK("tail: a type that is none", is(tidewire_tail_open(engine, &options, &none_made, &err), &err, TIDEWIRE_INVALID_CONFIG, "ObjectCreat"));
  options.struct_size = 5;
  CHECK("tail: options of another size", is(tidewire_tail_open(engine, &options, &none_made, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "TIDEWIRE_READ_OPTIONS_INIT"));
  CHECK("tail: no place for it", is(tidewire_tail_open(engine, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "tail_out is NULL"));
  CHECK("tail: no engine", is(tidewire_tail_open(NULL, NULL, &none_made, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
  CHECK("tail: none to ask", is(tidewire_tail_next(NULL, 1, 0, &items, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "tail is NULL") && !items);
  CHECK("tail: no place for items", is(tidewire_tail_next(now, 1, 0, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "items_out is NULL"));
  CHECK("tail: too many", is(tidewire_tail_next(now, SIZE_MAX, 0, &items, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "max"));
  CHECK("tail: no items at all", tidewire_items_count(NULL) == 0 && is(tidewire_items_get(NULL, 0, &item, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "items is NULL"));

  tidewire_tail_t **all[] = {&now, &of_bucket, &of_types, &filtered, &again, &future};
  for (size_t n = 0; n < sizeof all / sizeof *all; n++) tidewire_tail_free(all[n]);
  CHECK("tail: freed", now == NULL && future == NULL);
  tidewire_tail_free(&now);
  tidewire_tail_free(NULL);
}

static tidewire_consumer_t *member_of(tidewire_engine_t *engine, const char *group, const tidewire_read_options_t *options) {
  tidewire_consumer_t *consumer = NULL;
  tidewire_error_t *err = NULL;
  if (tidewire_consumer_open(engine, tidewire_str(group), options, &consumer, &err) != TIDEWIRE_OK)
    printf("     %s\n", tidewire_error_message(err));
  tidewire_error_free(err);
  return consumer;
}

/* One event, which must come within 10 seconds; its key is compared. */
static int takes(tidewire_consumer_t *consumer, const char *key, uint32_t deliveries, tidewire_lease_t *lease) {
  tidewire_items_t *items = NULL;
  tidewire_consumer_fetch(consumer, 1, 10 * SECOND, &items, NULL);
  tidewire_item_t item = item_of(items, 0);
  int ok = tidewire_items_count(items) == 1 && has_key(&item, key) && item.deliveries == deliveries;
  if (!ok) printf("     %zu items, delivery %u\n", tidewire_items_count(items), (unsigned)item.deliveries);
  if (lease) *lease = item.lease;
  tidewire_items_free(&items);
  return ok;
}

static int takes_nothing(tidewire_consumer_t *consumer) {
  tidewire_items_t *items = NULL;
  int ok = tidewire_consumer_fetch(consumer, 10, 50, &items, NULL) == TIDEWIRE_OK && tidewire_items_count(items) == 0;
  tidewire_items_free(&items);
  return ok;
}

static int groups_say(tidewire_engine_t *engine, const char *part) {
  char *json = NULL;
  size_t len = 0;
  int ok = tidewire_groups_json(engine, &json, &len, NULL) == TIDEWIRE_OK && strlen(json) == len && strstr(json, part);
  if (!ok) printf("     %s\n     lacks %s\n", json ? json : "", part);
  tidewire_string_free(json);
  return ok;
}

static void test_consumers(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_lease_t lease = {0, 0, 0}, second = {0, 0, 0};
  tidewire_read_options_t options = TIDEWIRE_READ_OPTIONS_INIT;
  options.bucket = tidewire_str("work");
  tidewire_consumer_t *one = member_of(engine, "workers", &options);
  tidewire_consumer_t *two = member_of(engine, "workers", &options);
  CHECK("consumer: nothing yet", takes_nothing(one));
  publish(engine, "work", "k");
  publish(engine, "work", "k");
  publish(engine, "b", "k");
  CHECK("consumer: takes an event", takes(one, "k", 1, &lease));
  CHECK("consumer: of one key there is one out", takes_nothing(two));
  CHECK("consumer: not done yet", groups_say(engine, "\"out\":1"));
  CHECK("consumer: has longer", is(tidewire_consumer_extend(one, &lease, &err), &err, TIDEWIRE_OK, ""));
  CHECK("consumer: gives it back", is(tidewire_consumer_nack(one, &lease, 0, &err), &err, TIDEWIRE_OK, ""));
  CHECK("consumer: another gets it", takes(two, "k", 2, &lease));
  CHECK("consumer: done", is(tidewire_consumer_ack(two, &lease, 1, &err), &err, TIDEWIRE_OK, ""));
  CHECK("consumer: done once", is(tidewire_consumer_ack(two, &lease, 1, &err), &err, TIDEWIRE_NOT_FOUND, "acknowledge each delivery once"));
  CHECK("consumer: the next of the key", takes(one, "k", 1, &second));
  tidewire_lease_t both[] = {lease, second};
  CHECK("consumer: the good ones are done", is(tidewire_consumer_ack(one, both, 2, &err), &err, TIDEWIRE_NOT_FOUND, "1 of 2") &&
                                             groups_say(engine, "\"acknowledged\":2") && groups_say(engine, "\"out\":0"));
  CHECK("consumer: what is of another bucket does not come", takes_nothing(one));

  tidewire_read_options_t quick = options;
  quick.visibility_timeout_ms = 50;
  tidewire_consumer_t *forgetful = member_of(engine, "workers", &quick);
  publish(engine, "work", "slow");
  CHECK("consumer: takes one and does nothing", takes(forgetful, "slow", 1, &lease));
  CHECK("consumer: another gets it in the end", takes(one, "slow", 2, &second));
  CHECK("consumer: too late", is(tidewire_consumer_ack(forgetful, &lease, 1, &err), &err, TIDEWIRE_TIMEOUT, "visibility_timeout"));
  CHECK("consumer: in time", is(tidewire_consumer_ack(one, &second, 1, &err), &err, TIDEWIRE_OK, ""));
  publish(engine, "work", "left");
  CHECK("consumer: has one", takes(two, "left", 1, NULL));
  tidewire_consumer_free(&two);
  CHECK("consumer: what it had goes out again", two == NULL && takes(one, "left", 2, &lease));
  tidewire_consumer_ack(one, &lease, 1, NULL);

  tidewire_read_options_t strict = options;
  strict.bucket = tidewire_str("strict");
  strict.deliveries_max = 1;
  tidewire_consumer_t *giver_up = member_of(engine, "strict", &strict);
  publish(engine, "strict", "bad");
  CHECK("consumer: takes a bad one", takes(giver_up, "bad", 1, &lease));
  tidewire_consumer_nack(giver_up, &lease, 0, NULL);
  CHECK("consumer: it does not come again", takes_nothing(giver_up));
  int dead = 0;
  for (int round = 0; round < 1000 && !dead; round++) {
    struct timespec pause = {0, 10000000};
    nanosleep(&pause, NULL);
    takes_nothing(giver_up);
    char *json = NULL;
    tidewire_groups_json(engine, &json, NULL, NULL);
    dead = strstr(json, "\"dead_lettered\":1") != NULL;
    tidewire_string_free(json);
  }
  CHECK("consumer: it is a dead letter", dead);

  tidewire_consumer_t *none_made = NULL;
  options.bucket = tidewire_str("b");
  CHECK("consumer: a group has one filter", is(tidewire_consumer_open(engine, tidewire_str("workers"), &options, &none_made, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "filter"));
  CHECK("consumer: a name that is none", is(tidewire_consumer_open(engine, tidewire_str("a/b"), NULL, &none_made, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "group"));
  options.visibility_timeout_ms = UINT64_MAX;
  CHECK("consumer: out of range", is(tidewire_consumer_open(engine, tidewire_str("x"), &options, &none_made, &err), &err, TIDEWIRE_INVALID_CONFIG, "visibility_timeout"));
  CHECK("consumer: no place for it", is(tidewire_consumer_open(engine, tidewire_str("x"), NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "consumer_out is NULL"));
  tidewire_items_t *items = NULL;
  CHECK("consumer: none to ask", is(tidewire_consumer_fetch(NULL, 1, 0, &items, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "consumer is NULL"));
  CHECK("consumer: no leases", is(tidewire_consumer_ack(one, NULL, 1, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "leases is NULL") &&
                                 is(tidewire_consumer_ack(one, NULL, 0, &err), &err, TIDEWIRE_OK, "") &&
                                 is(tidewire_consumer_nack(one, NULL, 0, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "lease is NULL"));
  lease.shard = UINT64_MAX;
  CHECK("consumer: a lease that nobody gave", is(tidewire_consumer_extend(one, &lease, &err), &err, TIDEWIRE_NOT_FOUND, "not out"));
  CHECK("group: deleted", is(tidewire_group_delete(engine, tidewire_str("workers"), &err), &err, TIDEWIRE_OK, ""));
  CHECK("group: deleted once", is(tidewire_group_delete(engine, tidewire_str("workers"), &err), &err, TIDEWIRE_NOT_FOUND, "workers"));
  CHECK("group: its members are told", is(tidewire_consumer_fetch(one, 1, 0, &items, &err), &err, TIDEWIRE_NOT_FOUND, "deleted") && !items);
  tidewire_consumer_free(&one);
  tidewire_consumer_free(&forgetful);
  tidewire_consumer_free(&giver_up);
  tidewire_consumer_free(&none_made);
  tidewire_consumer_free(NULL);
}

/* What was there before goes on after the engine was closed: a group and a position. */
static void test_closing(tidewire_engine_t **engine, const char *dir) {
  tidewire_error_t *err = NULL;
  tidewire_lease_t lease = {0, 0, 0};
  char *position = NULL;
  tidewire_tail_t *tail = tail_of(*engine, NULL);
  tidewire_consumer_t *member = member_of(*engine, "kept", NULL);
  tidewire_tail_position(tail, &position, NULL, NULL);
  publish(*engine, "b", "before");
  CHECK("closing: taken, not done", takes(member, "before", 1, &lease));
  tidewire_close(engine, 0, &err);
  tidewire_items_t *items = NULL;
  CHECK("closing: a tail reads to the end", !strcmp(keys(tail, 1), "before") &&
                                              is(tidewire_tail_next(tail, 1, SECOND, &items, &err), &err, TIDEWIRE_CLOSED, ""));
  CHECK("closing: a member is told", is(tidewire_consumer_ack(member, &lease, 1, &err), &err, TIDEWIRE_CLOSED, ""));
  tidewire_consumer_free(&member);
  tidewire_tail_free(&tail);
  CHECK("closing: opened again", is(open_in(dir, KEPT, engine, &err), &err, TIDEWIRE_OK, ""));
  member = member_of(*engine, "kept", NULL);
  CHECK("closing: it comes again", takes(member, "before", 2, &lease) && tidewire_consumer_ack(member, &lease, 1, NULL) == TIDEWIRE_OK);
  tidewire_read_options_t options = TIDEWIRE_READ_OPTIONS_INIT;
  options.from = TIDEWIRE_FROM_POSITION;
  options.position = tidewire_str(position);
  tail = tail_of(*engine, &options);
  CHECK("closing: a position stays good", !strcmp(keys(tail, 1), "before"));
  tidewire_consumer_free(&member);
  tidewire_tail_free(&tail);
  tidewire_string_free(position);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  scratch = argv[1];
  char dir[512];
  snprintf(dir, sizeof dir, "%s", directory("reading"));
  tidewire_engine_t *engine = NULL;
  tidewire_error_t *err = NULL;
  CHECK("opened", is(open_in(dir, KEPT, &engine, &err), &err, TIDEWIRE_OK, ""));
  if (engine) {
    test_tails(engine);
    test_consumers(engine);
    test_closing(&engine, dir);
    tidewire_close(&engine, 0, NULL);
  }
  printf("%u passed, %u failed\n", passed, failed);
  return failed ? 1 : 0;
}
