/* Dead letters and replays, from C.
 *
 *   test_again SCRATCH-DIRECTORY
 *
 * Prints a line per check, then `N passed, M failed`. Nothing has to listen anywhere: what is refused is what is wanted.
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "check.h"

#define KEPT                                                                                                           \
  "[engine]\nshards = 2\n"                                                                                             \
  "[engine.retention]\nkeep = \"all\"\nage_max = \"1h\"\n"                                                             \
  "[[destination]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n"                              \
  "retry = { attempts_max = 1 }\nbreaker = { consecutive_failures = 1000000, calls_min = 1000000 }\n"                  \
  "[[rule]]\nid = \"created\"\nbucket = \"b\"\nevents = [\"s3:ObjectCreated:*\"]\ndestinations = [\"hook\"]\n"

static char text[1 << 20];

static const char *taken(tidewire_result_t result, char *json, size_t len) {
  text[0] = 0;
  if (result == TIDEWIRE_OK && json && strlen(json) == len && len < sizeof text) memcpy(text, json, len + 1);
  tidewire_string_free(json);
  return text;
}

static int has(const char *in, const char *part) {
  int ok = strstr(in, part) != NULL;
  if (!ok) printf("     %s\n     lacks %s\n", in, part);
  return ok;
}

static uint64_t dead(tidewire_engine_t *engine) {
  tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
  tidewire_stats(engine, &stats, NULL);
  return stats.dead_lettered;
}

static int gather(void *data, const uint8_t *bytes, size_t len) {
  size_t *so_far = data;
  if (*so_far + len >= sizeof text) return 1;
  memcpy(text + *so_far, bytes, len);
  *so_far += len;
  text[*so_far] = 0;
  return 0;
}

static int stop(void *data, const uint8_t *bytes, size_t len) {
  (void)data, (void)bytes, (void)len;
  return 1;
}

/* The lines of the dead letters that a filter wants, and how many. */
static const char *lines(tidewire_engine_t *engine, const tidewire_dead_letter_filter_t *filter, uint64_t *count) {
  size_t len = 0;
  text[0] = 0;
  *count = 99;
  tidewire_dead_letters_export(engine, filter, gather, &len, count, NULL);
  return text;
}

static void test_dead_letters(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  uint64_t count = 0, redriven = 9, left = 9, purged = 9;
  const tidewire_bytes_t empty = tidewire_bytes(NULL, 0);
  tidewire_dead_letter_filter_t filter = TIDEWIRE_DEAD_LETTER_FILTER_INIT;

  for (int i = 0; i < 10; i++) {
    char key[16];
    snprintf(key, sizeof key, i < 3 ? "a/%d" : "z/%d", i);
    tidewire_event_t event = event_of("b", key);
    tidewire_publish(engine, &event, NULL, NULL, NULL);
  }
  CHECK("dead: 10 are given up", is(tidewire_flush(engine, 60000, &err), &err, TIDEWIRE_OK, "") && dead(engine) == 10);
  CHECK("dead: all are exported", has(lines(engine, NULL, &count), "\"a/0\"") && count == 10 && has(text, "\"hook\"") && has(text, "\n"));
  filter.key_prefix = tidewire_str("a/");
  CHECK("dead: those of a prefix", has(lines(engine, &filter, &count), "a/2") && count == 3);
  filter.bucket = tidewire_str("other");
  lines(engine, &filter, &count);
  CHECK("dead: and of another bucket", count == 0);
  filter.bucket = empty;
  filter.destination = tidewire_str("nowhere");
  CHECK("dead: of a destination that never was",
        is(tidewire_dead_letters_export(engine, &filter, gather, &redriven, &count, &err), &err, TIDEWIRE_NOT_FOUND, "nowhere"));
  filter.destination = tidewire_str("hook");
  filter.ids = tidewire_str("0-x");
  CHECK("dead: an id that is none", is(tidewire_dead_letters_purge(engine, &filter, 1000, &purged, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "0-x") && purged == 0);
  filter.ids = tidewire_str("  ");
  CHECK("dead: nothing but spaces is not all", is(tidewire_dead_letters_purge(engine, &filter, 1000, &purged, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "ids"));
  filter.ids = empty;
  CHECK("dead: the callback ends it", is(tidewire_dead_letters_export(engine, NULL, stop, NULL, NULL, &err), &err, TIDEWIRE_IO, "callback"));
  CHECK("dead: callback NULL", is(tidewire_dead_letters_export(engine, NULL, NULL, NULL, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "callback"));
  filter.struct_size = 1;
  CHECK("dead: wrong size", is(tidewire_dead_letters_purge(engine, &filter, 1000, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "filter.struct_size"));
  filter.struct_size = sizeof filter;

  CHECK("redrive: to nowhere", is(tidewire_dead_letters_redrive(engine, &filter, tidewire_str("nowhere"), 0, 60000, NULL, NULL, &err), &err, TIDEWIRE_NOT_FOUND, "nowhere"));
  CHECK("redrive: three", is(tidewire_dead_letters_redrive(engine, &filter, empty, 0, 60000, &redriven, &left, &err), &err, TIDEWIRE_OK, "") && redriven == 3 && left == 0);
  CHECK("redrive: they are given up again", is(tidewire_flush(engine, 60000, &err), &err, TIDEWIRE_OK, "") && dead(engine) == 13);
  CHECK("redrive: slowly, and not waited for",
        is(tidewire_dead_letters_redrive(engine, NULL, empty, 1, 1, &redriven, &left, &err), &err, TIDEWIRE_TIMEOUT, "") && redriven < 10);
  CHECK("redrive: that settles", is(tidewire_flush(engine, 60000, &err), &err, TIDEWIRE_OK, ""));

  CHECK("purge: three", is(tidewire_dead_letters_purge(engine, &filter, 60000, &purged, &err), &err, TIDEWIRE_OK, "") && purged == 3);
  CHECK("purge: the rest", is(tidewire_dead_letters_purge(engine, NULL, 60000, &purged, &err), &err, TIDEWIRE_OK, "") && purged == 7);
  lines(engine, NULL, &count);
  CHECK("purge: none are left", count == 0);
}

static void test_replay(tidewire_engine_t *engine) {
  tidewire_error_t *err = NULL;
  tidewire_replay_t *replay = NULL, *found = NULL;
  tidewire_replay_options_t options = TIDEWIRE_REPLAY_OPTIONS_INIT;
  tidewire_filter_t *filter = NULL;
  char *json = NULL;
  size_t len = 0;

  CHECK("replay: to nobody", is(tidewire_replay_start(engine, &options, &replay, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "destination") && !replay);
  options.destination = tidewire_str("nowhere");
  CHECK("replay: to nowhere", is(tidewire_replay_start(engine, &options, &replay, &err), &err, TIDEWIRE_NOT_FOUND, "nowhere"));
  options.destination = tidewire_str("hook");
  options.name = tidewire_str("again");
  CHECK("replay: filter", is(tidewire_filter_parse(TIDEWIRE_FILTER_JSON, tidewire_str("{\"prefix\": \"a/\"}"), &filter, &err), &err, TIDEWIRE_OK, ""));
  options.filter = filter;
  CHECK("replay: started", is(tidewire_replay_start(engine, &options, &replay, &err), &err, TIDEWIRE_OK, "") && replay);
  tidewire_filter_free(filter);
  CHECK("replay: it ends", is(tidewire_replay_wait(replay, 60000, &err), &err, TIDEWIRE_OK, ""));
  tidewire_result_t result = tidewire_replay_json(replay, &json, &len, &err);
  CHECK("replay: the three of the prefix were found and refused",
        is(result, &err, TIDEWIRE_OK, "") && has(taken(result, json, len), "\"state\":\"done\"") && has(text, "\"dead_lettered\":3") &&
            has(text, "\"found\":3") && has(text, "\"name\":\"again\""));
  tidewire_replay_free(&replay);
  CHECK("replay: freed", replay == NULL);
  tidewire_replay_free(&replay);
  tidewire_replay_free(NULL);

  options.filter = NULL;
  options.destination = tidewire_bytes(NULL, 0);
  options.one_off = tidewire_str("{\"name\": \"slow\", \"type\": \"webhook\", \"url\": \"http://127.0.0.1:9/\"}");
  options.name = tidewire_str("slow");
  options.rate_max = 1;
  CHECK("replay: to a destination of its own", is(tidewire_replay_start(engine, &options, &replay, &err), &err, TIDEWIRE_OK, ""));
  CHECK("replay: the name is taken", is(tidewire_replay_start(engine, &options, &found, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "slow") && !found);
  CHECK("replay: it is found", is(tidewire_replay_find(engine, tidewire_str("slow"), &found, &err), &err, TIDEWIRE_OK, "") && found);
  tidewire_replay_free(&replay);
  CHECK("replay: another is not", is(tidewire_replay_find(engine, tidewire_str("x"), &replay, &err), &err, TIDEWIRE_NOT_FOUND, "x") && !replay);
  result = tidewire_replays_json(engine, &json, &len, &err);
  CHECK("replay: it is listed", is(result, &err, TIDEWIRE_OK, "") && has(taken(result, json, len), "\"name\":\"slow\"") && has(text, "\"state\":\"running\""));
  CHECK("replay: not through", is(tidewire_replay_wait(found, 10, &err), &err, TIDEWIRE_TIMEOUT, ""));
  CHECK("replay: cancelled", is(tidewire_replay_cancel(found, &err), &err, TIDEWIRE_OK, "") && is(tidewire_replay_wait(found, 60000, &err), &err, TIDEWIRE_OK, ""));
  result = tidewire_replay_json(found, &json, &len, &err);
  CHECK("replay: which it tells", is(result, &err, TIDEWIRE_OK, "") && has(taken(result, json, len), "\"state\":\"cancelled\""));
  CHECK("replay: NULL", is(tidewire_replay_wait(NULL, 1, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "replay is NULL") &&
                            is(tidewire_replay_cancel(NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "replay is NULL") &&
                            is(tidewire_replay_start(engine, &options, NULL, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "replay_out") &&
                            is(tidewire_replay_start(engine, NULL, &replay, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "options"));
  tidewire_replay_free(&found);
  CHECK("replay: nothing waits for a destination",
        is(tidewire_replay_resume(engine, tidewire_str("x"), options.one_off, &err), &err, TIDEWIRE_NOT_FOUND, "x"));
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  scratch = argv[1];
  tidewire_error_t *err = NULL;
  tidewire_engine_t *engine = NULL;
  CHECK("open", is(open_in(directory("again"), KEPT, &engine, &err), &err, TIDEWIRE_OK, ""));
  if (engine) {
    test_dead_letters(engine);
    test_replay(engine);
    CHECK("close", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
  }
  printf("%u passed, %u failed\n", passed, failed);
  return failed > 0;
}
