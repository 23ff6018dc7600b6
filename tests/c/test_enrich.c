/* What the host adds to events, and its clock, from C.
 *
 *   test_enrich SCRATCH-DIRECTORY
 *
 * Prints a line per check, then `N passed, M failed`. Nothing has to listen anywhere.
 */
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

/* Everything is kept, and read again. */
#define KEPT "[engine]\nshards = 2\nevent_bytes_max = \"16KiB\"\n[engine.retention]\nkeep = \"all\"\nage_max = \"1h\"\n"

enum { SECOND = 1000, EVENTS_MAX = 64 };

/* C99 has no atomics of its own. */
#define GET(number) __atomic_load_n(&(number), __ATOMIC_SEQ_CST)
#define SET(number, value) __atomic_store_n(&(number), (value), __ATOMIC_SEQ_CST)
#define ADD(number, value) ((void)__atomic_add_fetch(&(number), (value), __ATOMIC_SEQ_CST))

struct host {
  unsigned calls, released, wrong, hold;
};

static int same(tidewire_bytes_t bytes, const char *text) {
  return bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

static void nap(void) {
  struct timespec ms = {0, 1000000};
  nanosleep(&ms, NULL);
}

static void enrich(void *data, const tidewire_event_t *event, tidewire_enrichment_t *added) {
  struct host *host = data;
  ADD(host->calls, 1);
  tidewire_error_t *err = NULL;
  char big[20000];
  memset(big, 'x', sizeof big);
  ADD(host->wrong, (unsigned)(event->struct_size != sizeof *event || !same(event->bucket, "b")));
  ADD(host->wrong, (unsigned)(tidewire_enrich_set_metadata(added, tidewire_str("by"), tidewire_str("host"), NULL) != TIDEWIRE_OK));
  if (same(event->key, "good")) {
    ADD(host->wrong, (unsigned)(event->tags_count != 1 || !same(event->tags[0].name, "t") || !same(event->tags[0].value, "1")));
    ADD(host->wrong, (unsigned)(tidewire_enrich_set_tag(added, tidewire_str("t"), tidewire_str("2"), NULL) != TIDEWIRE_OK));
    ADD(host->wrong, (unsigned)(tidewire_enrich_set_data(added, tidewire_str("{\"a\":1}"), NULL) != TIDEWIRE_OK));
  } else if (same(event->key, "invalid")) {
    /* What is refused is not there; the rest is. */
    ADD(host->wrong, (unsigned)(!is(tidewire_enrich_set_tag(added, tidewire_str("a"), tidewire_str("\xff"), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "value is not UTF-8")));
    ADD(host->wrong, (unsigned)(!is(tidewire_enrich_set_metadata(added, tidewire_str("\xff"), tidewire_str("a"), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "name is not UTF-8")));
    ADD(host->wrong, (unsigned)(!is(tidewire_enrich_set_tag(added, tidewire_str(""), tidewire_str("a"), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "name is empty")));
    ADD(host->wrong, (unsigned)(!is(tidewire_enrich_set_tag(added, tidewire_bytes(NULL, 3), tidewire_str("a"), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "name is NULL")));
    ADD(host->wrong, (unsigned)(!is(tidewire_enrich_set_tag(added, tidewire_str("a"), tidewire_bytes(big, SIZE_MAX), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "more than")));
    ADD(host->wrong, (unsigned)(!is(tidewire_enrich_set_data(added, tidewire_bytes(NULL, 1), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "data is NULL")));
    ADD(host->wrong, (unsigned)(!is(tidewire_enrich_set_tag(NULL, tidewire_str("a"), tidewire_str("a"), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "enrichment is NULL")));
    ADD(host->wrong, (unsigned)(!is(tidewire_enrich_set_data(NULL, tidewire_str("1"), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "enrichment is NULL")));
    ADD(host->wrong, (unsigned)(!is(tidewire_enrich_fail(NULL, tidewire_str("a"), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "enrichment is NULL")));
  } else if (same(event->key, "large")) {
    ADD(host->wrong, (unsigned)(tidewire_enrich_set_tag(added, tidewire_str("big"), tidewire_bytes(big, sizeof big), NULL) != TIDEWIRE_OK));
  } else if (same(event->key, "no-json")) {
    ADD(host->wrong, (unsigned)(tidewire_enrich_set_data(added, tidewire_str("{"), NULL) != TIDEWIRE_OK));
  } else if (same(event->key, "fails")) {
    ADD(host->wrong, (unsigned)(tidewire_enrich_fail(added, tidewire_str("not today"), NULL) != TIDEWIRE_OK));
  } else if (same(event->key, "fails-badly")) {
    ADD(host->wrong, (unsigned)(!is(tidewire_enrich_fail(added, tidewire_str("\xff"), &err), &err, TIDEWIRE_INVALID_ARGUMENT, "reason")));
  } else if (same(event->key, "stuck")) {
    while (GET(host->hold)) nap();
  }
}

static void released(void *data) {
  struct host *host = data;
  ADD(host->released, 1);
}

static tidewire_enricher_t enricher_of(struct host *host) {
  static const tidewire_pair_t yes[1] = {{{(const uint8_t *)"fallback", 8}, {(const uint8_t *)"yes", 3}}};
  tidewire_enricher_t enricher = TIDEWIRE_ENRICHER_INIT;
  enricher.callback = enrich;
  enricher.callback_data = host;
  enricher.release = released;
  enricher.timeout_ms = 60 * SECOND;
  enricher.fallback_tags = yes;
  enricher.fallback_tags_count = 1;
  return enricher;
}

static void publish(tidewire_engine_t *engine, const char *key) {
  tidewire_pair_t tag = {tidewire_str("t"), tidewire_str("1")};
  tidewire_event_t event = event_of("b", key);
  event.tags = &tag;
  event.tags_count = 1;
  CHECK("publish", tidewire_publish(engine, &event, NULL, NULL, NULL) == TIDEWIRE_OK);
}

/* What became of the first event of a key in the log: fills its time, and copies a text `metadata|tags|data`. */
static int logged(tidewire_engine_t *engine, const char *key, char *text, size_t size, uint64_t *time_ns) {
  tidewire_tail_t *tail = NULL;
  tidewire_items_t *items = NULL;
  tidewire_read_options_t options = TIDEWIRE_READ_OPTIONS_INIT;
  options.from = TIDEWIRE_FROM_BEGINNING;
  int found = 0;
  if (tidewire_tail_open(engine, &options, &tail, NULL) != TIDEWIRE_OK) return 0;
  while (!found && tidewire_tail_next(tail, EVENTS_MAX, SECOND, &items, NULL) == TIDEWIRE_OK) {
    size_t count = tidewire_items_count(items);
    for (size_t n = 0; n < count && !found; n++) {
      tidewire_item_t item = TIDEWIRE_ITEM_INIT;
      tidewire_items_get(items, n, &item, NULL);
      if (!item.event || !same(item.event->key, key)) continue;
      found = 1;
      if (time_ns) *time_ns = item.event->time_ns;
      size_t at = 0;
      const tidewire_event_t *e = item.event;
      const tidewire_pair_t *pairs[2] = {e->metadata, e->tags};
      const size_t counts[2] = {e->metadata_count, e->tags_count};
      for (int kind = 0; kind < 2; kind++) {
        for (size_t p = 0; p < counts[kind]; p++)
          at += (size_t)snprintf(text + at, size - at, "%.*s=%.*s,", (int)pairs[kind][p].name.len, (const char *)pairs[kind][p].name.data,
                                 (int)pairs[kind][p].value.len, (const char *)pairs[kind][p].value.data);
        at += (size_t)snprintf(text + at, size - at, "|");
      }
      snprintf(text + at, size - at, "%.*s", (int)e->data.len, (const char *)e->data.data);
    }
    tidewire_items_free(&items);
    if (count == 0) break;
  }
  tidewire_tail_free(&tail);
  return found;
}

static int became(tidewire_engine_t *engine, const char *key, const char *wanted) {
  char text[1024] = "";
  int ok = logged(engine, key, text, sizeof text, NULL) && strcmp(text, wanted) == 0;
  if (!ok) printf("     %s: %s\n", key, text);
  return ok;
}

static tidewire_stats_t counted(tidewire_engine_t *engine) {
  tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
  tidewire_stats(engine, &stats, NULL);
  return stats;
}

static void test_enricher(void) {
  static struct host host;
  tidewire_engine_t *engine = NULL;
  tidewire_error_t *err = NULL;
  CHECK("open", is(open_in(directory("enrich"), KEPT, &engine, &err), &err, TIDEWIRE_OK, ""));
  tidewire_enricher_t enricher = enricher_of(&host);
  publish(engine, "before");
  CHECK("set", is(tidewire_enricher_set(engine, &enricher, &err), &err, TIDEWIRE_OK, ""));
  const char *keys[] = {"good", "invalid", "large", "no-json", "fails", "fails-badly", "plain"};
  for (size_t n = 0; n < sizeof keys / sizeof keys[0]; n++) publish(engine, keys[n]);
  CHECK("before it was set", became(engine, "before", "|t=1,|"));
  CHECK("what was added", became(engine, "good", "by=host,|t=2,|{\"a\":1}"));
  CHECK("what is refused", became(engine, "invalid", "by=host,|t=1,|"));
  CHECK("too large: the fallback", became(engine, "large", "|t=1,fallback=yes,|"));
  CHECK("no JSON: the fallback", became(engine, "no-json", "|t=1,fallback=yes,|"));
  CHECK("failed: the fallback", became(engine, "fails", "|t=1,fallback=yes,|"));
  CHECK("failed with a bad reason: the fallback", became(engine, "fails-badly", "|t=1,fallback=yes,|"));
  CHECK("another one", became(engine, "plain", "by=host,|t=1,|"));
  tidewire_stats_t stats = counted(engine);
  CHECK("counted", stats.enriched == 3 && stats.enrich_failed == 4 && stats.enrich_timeouts == 0 && stats.enrich_skipped == 0);
  CHECK("nothing was wrong", GET(host.wrong) == 0 && GET(host.calls) == 7 && GET(host.released) == 0);

  /* Another one takes its place. */
  static struct host other;
  enricher = enricher_of(&other);
  enricher.timeout_ms = 20;
  CHECK("set again", is(tidewire_enricher_set(engine, &enricher, &err), &err, TIDEWIRE_OK, ""));
  for (int n = 0; n < 20000 && !GET(host.released); n++) nap();
  CHECK("the first is released", GET(host.released) == 1);
  SET(other.hold, 1);
  publish(engine, "stuck");
  CHECK("given up: the fallback", became(engine, "stuck", "|t=1,fallback=yes,|") && counted(engine).enrich_timeouts == 1);
  SET(other.hold, 0);

  /* Arguments. */
  CHECK("no engine", is(tidewire_enricher_set(NULL, &enricher, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "engine is NULL"));
  tidewire_enricher_t bad = TIDEWIRE_ENRICHER_INIT;
  CHECK("no callback", is(tidewire_enricher_set(engine, &bad, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "callback is NULL"));
  bad = enricher_of(&other);
  bad.struct_size = 9;
  CHECK("another size", is(tidewire_enricher_set(engine, &bad, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "TIDEWIRE_ENRICHER_INIT"));
  bad = enricher_of(&other);
  bad.timeout_ms = 60001;
  CHECK("too long a time", is(tidewire_enricher_set(engine, &bad, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "timeout"));
  bad = enricher_of(&other);
  bad.fallback_tags = NULL;
  CHECK("pairs that are NULL", is(tidewire_enricher_set(engine, &bad, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "fallback_tags is NULL"));
  bad = enricher_of(&other);
  tidewire_pair_t pair = {tidewire_str("\xff"), tidewire_str("")};
  bad.fallback_tags = &pair;
  CHECK("pairs that are no text", is(tidewire_enricher_set(engine, &bad, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "fallback_tags[0].name"));
  pair.name = tidewire_str("");
  CHECK("pairs without a name", is(tidewire_enricher_set(engine, &bad, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "fallback"));
  bad.fallback_metadata_count = SIZE_MAX;
  CHECK("too many pairs", is(tidewire_enricher_set(engine, &bad, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "fallback_metadata"));
  CHECK("none of these was released", GET(other.released) == 0);

  pid_t child = fork();
  if (child == 0) _exit(tidewire_enricher_set(engine, NULL, NULL) == TIDEWIRE_WRONG_PROCESS ? 0 : 1);
  int status = 1;
  waitpid(child, &status, 0);
  CHECK("a forked child", WIFEXITED(status) && WEXITSTATUS(status) == 0);

  CHECK("take it away", is(tidewire_enricher_set(engine, NULL, &err), &err, TIDEWIRE_OK, ""));
  publish(engine, "after");
  CHECK("after that", became(engine, "after", "|t=1,|"));
  tidewire_close(&engine, 0, NULL);
  for (int n = 0; n < 20000 && !GET(other.released); n++) nap();
  CHECK("each is released once", GET(host.released) == 1 && GET(other.released) == 1 && GET(other.wrong) == 0);
}

static void test_closing(void) {
  static struct host host;
  tidewire_engine_t *engine = NULL;
  tidewire_error_t *err = NULL;
  CHECK("closing: open", is(open_in(directory("closing"), KEPT, &engine, &err), &err, TIDEWIRE_OK, ""));
  tidewire_enricher_t enricher = enricher_of(&host);
  SET(host.hold, 1);
  CHECK("closing: set", is(tidewire_enricher_set(engine, &enricher, &err), &err, TIDEWIRE_OK, ""));
  tidewire_event_t event = event_of("b", "stuck");
  tidewire_publish_options_t memory = TIDEWIRE_PUBLISH_OPTIONS_INIT;
  memory.ack = TIDEWIRE_ACK_MEMORY;
  CHECK("closing: publish", tidewire_publish(engine, &event, &memory, NULL, NULL) == TIDEWIRE_OK);
  for (int n = 0; n < 20000 && !GET(host.calls); n++) nap();
  CHECK("closing: it is called", GET(host.calls) == 1);
  CHECK("closing: does not wait for it", is(tidewire_close(&engine, 50, &err), &err, TIDEWIRE_OK, "") && GET(host.released) == 0);
  SET(host.hold, 0);
  for (int n = 0; n < 20000 && !GET(host.released); n++) nap();
  CHECK("closing: released when it has returned", GET(host.released) == 1);
  CHECK("closing: open again", is(open_in(directory("closing"), KEPT, &engine, &err), &err, TIDEWIRE_OK, ""));
  CHECK("closing: what was accepted is there", became(engine, "stuck", "|fallback=yes,|"));
  tidewire_close(&engine, 0, NULL);
}

struct clock {
  uint64_t now;
  unsigned calls, released;
};

static uint64_t now_of(void *data) {
  struct clock *clock = data;
  ADD(clock->calls, 1);
  return GET(clock->now);
}

static void clock_released(void *data) {
  struct clock *clock = data;
  ADD(clock->released, 1);
}

static void test_clock(void) {
  static struct clock clock;
  const uint64_t second = 1000000000ULL, year_2001 = 1000000000ULL * second;
  tidewire_engine_t *engine = NULL;
  tidewire_error_t *err = NULL;
  tidewire_options_t options = TIDEWIRE_OPTIONS_INIT;
  options.config_text = tidewire_str(KEPT);
  options.data_dir = tidewire_str(directory("clock"));
  options.clock = now_of;
  options.clock_data = &clock;
  options.clock_release = clock_released;
  SET(clock.now, year_2001);
  CHECK("clock: open", is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_OK, ""));
  const uint64_t times[] = {year_2001, year_2001 + 60 * second, year_2001 - 60 * second, 0, UINT64_MAX, year_2001};
  const uint64_t told[] = {year_2001, year_2001 + 60 * second, year_2001 - 60 * second, 1, INT64_MAX, year_2001};
  for (size_t n = 0; n < sizeof times / sizeof times[0]; n++) {
    char key[16], text[256];
    snprintf(key, sizeof key, "k%zu", n);
    SET(clock.now, times[n]);
    tidewire_event_t event = event_of("b", key);
    uint64_t time_ns = 0;
    CHECK("clock: publish", tidewire_publish(engine, &event, NULL, NULL, NULL) == TIDEWIRE_OK);
    CHECK("clock: the event has its time", logged(engine, key, text, sizeof text, &time_ns) && time_ns == told[n]);
  }
  tidewire_event_t event = event_of("b", "own");
  char text[256];
  uint64_t time_ns = 0;
  event.time_ns = 77;
  CHECK("clock: a time of the host's own stays", tidewire_publish(engine, &event, NULL, NULL, NULL) == TIDEWIRE_OK &&
                                                      logged(engine, "own", text, sizeof text, &time_ns) && time_ns == 77);
  CHECK("clock: in use", GET(clock.calls) > 6 && GET(clock.released) == 0);
  CHECK("clock: close", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
  for (int n = 0; n < 20000 && !GET(clock.released); n++) nap();
  CHECK("clock: released", GET(clock.released) == 1);
  options.config_text = tidewire_str("nonsense");
  CHECK("clock: not opened", is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_CONFIG, "") && GET(clock.released) == 1);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  scratch = argv[1];
  test_enricher();
  test_closing();
  test_clock();
  printf("%u passed, %u failed\n", passed, failed);
  return failed ? 1 : 0;
}
