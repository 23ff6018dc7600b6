/* Several processes over one engine, from C.
 *
 *   test_shared SCRATCH-DIRECTORY
 *
 * Prints a line per check, then `N passed, M failed`. Nothing has to listen anywhere. The program calls itself for the other
 * processes.
 */
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static char address[600], config[4096];

static void sleep_ms(long ms) {
  struct timespec t = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&t, NULL);
}

static tidewire_result_t connect_to(const char *to, uint64_t timeout_ms, tidewire_engine_t **engine, tidewire_error_t **err) {
  tidewire_options_t options = TIDEWIRE_OPTIONS_INIT;
  options.address = tidewire_str(to);
  options.connect_timeout_ms = timeout_ms;
  return tidewire_open(&options, engine, err);
}

static uint64_t accepted_of(tidewire_engine_t *engine) {
  tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
  tidewire_stats(engine, &stats, NULL);
  return stats.accepted;
}

/* Whether so many come to be accepted: what is published at `memory` is counted a moment later. */
static int comes_to(tidewire_engine_t *engine, uint64_t wanted) {
  for (int n = 0; n < 3000 && accepted_of(engine) < wanted; n++) sleep_ms(10);
  return accepted_of(engine) == wanted;
}

/* What the other processes do; anything but 0 is a failure. */
static int child(const char *what) {
  tidewire_engine_t *engine = NULL;
  tidewire_error_t *err = NULL;
  tidewire_event_t event = event_of("b", "child");
  tidewire_publish_options_t options = TIDEWIRE_PUBLISH_OPTIONS_INIT;
  tidewire_outcome_t outcome = 9;
  if (!is(connect_to(address, 30000, &engine, &err), &err, TIDEWIRE_OK, "")) return 1;
  if (strcmp(what, "publish") == 0) {
    for (int n = 0; n < 300; n++) {
      options.ack = n % 3 == 0 ? TIDEWIRE_ACK_SYNCED : n % 3 == 1 ? TIDEWIRE_ACK_WRITTEN : TIDEWIRE_ACK_MEMORY;
      if (!is(tidewire_publish(engine, &event, &options, &outcome, &err), &err, TIDEWIRE_OK, "")) return 2;
      if (outcome != TIDEWIRE_OUTCOME_ACCEPTED) return 3;
    }
    if (!is(tidewire_close(&engine, 30000, &err), &err, TIDEWIRE_OK, "")) return 4;
    return 0;
  }
  /* Dies with a durable reservation and one that is not. */
  tidewire_reserve_options_t reserve = TIDEWIRE_RESERVE_OPTIONS_INIT;
  tidewire_reservation_t *durable = NULL, *volatile_one = NULL;
  if (!is(tidewire_reserve(engine, &event, &reserve, &volatile_one, &err), &err, TIDEWIRE_OK, "")) return 5;
  reserve.intent = TIDEWIRE_INTENT_DURABLE;
  if (!is(tidewire_reserve(engine, &event, &reserve, &durable, &err), &err, TIDEWIRE_OK, "")) return 6;
  options.ack = TIDEWIRE_ACK_MEMORY;
  if (tidewire_publish(engine, &event, &options, &outcome, NULL) != TIDEWIRE_OK) return 7;
  kill(getpid(), SIGKILL);
  return 8;
}

static const char *program;

static pid_t start(const char *what) {
  pid_t pid = fork();
  if (pid == 0) {
    execl(program, program, scratch, what, (char *)NULL);
    _exit(99);
  }
  return pid;
}

static int status_of(pid_t pid) {
  int status = -1;
  return waitpid(pid, &status, 0) == pid ? status : -1;
}

static void test_open(void) {
  tidewire_engine_t *engine = (tidewire_engine_t *)1;
  tidewire_error_t *err = NULL;
  tidewire_options_t options = TIDEWIRE_OPTIONS_INIT;
  CHECK("open: nobody listens", is(connect_to(address, 1, &engine, &err), &err, TIDEWIRE_DISCONNECTED, "nobody listens") && engine == NULL);
  CHECK("open: no address", is(connect_to("tcp:127.0.0.1:1", 1, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "unix:"));
  CHECK("open: an empty path", is(connect_to("unix:", 1, &engine, &err), &err, TIDEWIRE_INVALID_CONFIG, "path"));
  char path[300];
  memset(path, 'x', sizeof path);
  memcpy(path, "unix:", 5);
  path[sizeof path - 1] = 0;
  CHECK("open: a long path", is(connect_to(path, 1, &engine, &err), &err, TIDEWIRE_INVALID_CONFIG, "107"));
  options.address = tidewire_bytes(NULL, 7);
  CHECK("open: an address that is NULL", is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "address"));
  options.address = tidewire_str(address);
  options.config_text = tidewire_str(config);
  CHECK("open: an address and a configuration", is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "address"));
  options.address = tidewire_str("");
  options.data_dir = tidewire_str(address);
  CHECK("open: an address as a data directory",
        is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_CONFIG, "not a directory") && engine == NULL);
  CHECK("validate: an address as a data directory",
        is(tidewire_validate(&options, &err), &err, TIDEWIRE_INVALID_CONFIG, "not a directory"));
  options.config_text = options.data_dir = tidewire_str("");
  options.address = tidewire_str(address);
  options.reserved = 1;
  CHECK("open: what is reserved", is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "reserved"));
  options = (tidewire_options_t)TIDEWIRE_OPTIONS_INIT;
  options.config_text = tidewire_str(CONFIG);
  options.data_dir = tidewire_str(directory("none"));
  options.shared = 1;
  CHECK("open: shared without a socket", is(tidewire_open(&options, &engine, &err), &err, TIDEWIRE_INVALID_CONFIG, "socket"));
  CHECK("validate: shared without a socket", is(tidewire_validate(&options, &err), &err, TIDEWIRE_INVALID_CONFIG, "socket"));
}

static void count(void *data, const char *token, uint64_t reserved_ns, const tidewire_event_t *event) {
  (void)reserved_ns;
  (void)event;
  snprintf(data, TIDEWIRE_TOKEN_BYTES, "%s", token);
}

static void test_calls(tidewire_engine_t *engine, tidewire_engine_t *client) {
  tidewire_error_t *err = NULL;
  tidewire_outcome_t outcome = 9;
  tidewire_event_t event = event_of("b", "k"), other = event_of("other", "k");
  uint64_t before = accepted_of(client);
  CHECK("calls: publish", is(tidewire_publish(client, &event, NULL, &outcome, &err), &err, TIDEWIRE_OK, "") && outcome == TIDEWIRE_OUTCOME_ACCEPTED);
  CHECK("calls: no match", is(tidewire_publish(client, &other, NULL, &outcome, &err), &err, TIDEWIRE_OK, "") && outcome == TIDEWIRE_OUTCOME_NO_MATCH);
  CHECK("calls: interested", tidewire_is_interested(client, &event) && !tidewire_is_interested(client, &other));
  CHECK("calls: the engine has it", accepted_of(engine) == before + 1 && accepted_of(client) == before + 1);
  tidewire_event_t wrong = event_of("b", "");
  CHECK("calls: an event that is not valid", is(tidewire_publish(client, &wrong, NULL, &outcome, &err), &err, TIDEWIRE_INVALID_EVENT, "key") && outcome == TIDEWIRE_OUTCOME_REFUSED);

  tidewire_completions_t *queue = NULL;
  CHECK("calls: completions", is(tidewire_completions_open(client, NULL, &queue, &err), &err, TIDEWIRE_OK, ""));
  int submitted = 1;
  for (uint64_t n = 0; n < 50; n++) submitted &= tidewire_submit(client, &event, NULL, queue, n, NULL, NULL) == TIDEWIRE_OK;
  size_t taken = 0;
  for (int round = 0; round < 60 && taken < 50; round++) {
    struct pollfd p = {tidewire_completions_fd(queue), POLLIN, 0};
    poll(&p, 1, 1000);
    tidewire_completion_t done[16];
    size_t got = 0;
    tidewire_completions_take(queue, done, 16, &got, NULL);
    for (size_t n = 0; n < got; n++) taken += done[n].result == TIDEWIRE_OK;
  }
  CHECK("calls: they complete", submitted && taken == 50);
  tidewire_completions_free(&queue);

  tidewire_reservation_t *r = NULL;
  CHECK("calls: reserve", is(tidewire_reserve(client, &event, NULL, &r, &err), &err, TIDEWIRE_OK, "") && r != NULL);
  CHECK("calls: commit", is(tidewire_commit(r, NULL, NULL, &err), &err, TIDEWIRE_OK, ""));
  CHECK("calls: abort after it", is(tidewire_abort(r, &err), &err, TIDEWIRE_INVALID_ARGUMENT, "committed"));
  tidewire_reservation_free(&r);

  uint64_t version = 0;
  CHECK("calls: a rule is put", is(tidewire_rule_put(client, tidewire_str("{\"id\": \"more\", \"bucket\": \"other\", \"events\": [\"*\"], \"destinations\": [\"hook\"]}"),
                                                     TIDEWIRE_EXPECT_ABSENT, &version, &err), &err, TIDEWIRE_OK, "") && version > 0);
  CHECK("calls: and counts", is(tidewire_publish(client, &other, NULL, &outcome, &err), &err, TIDEWIRE_OK, "") && outcome == TIDEWIRE_OUTCOME_ACCEPTED);
  char *json = NULL;
  CHECK("calls: rules", is(tidewire_rules_json(client, &json, NULL, &err), &err, TIDEWIRE_OK, "") && strstr(json, "\"more\"") != NULL);
  tidewire_string_free(json);
  CHECK("calls: stats", is(tidewire_stats_json(client, &json, NULL, &err), &err, TIDEWIRE_OK, "") && strstr(json, "\"clients\":1") != NULL);
  tidewire_string_free(json);
  CHECK("calls: a destination that is not there", is(tidewire_destination_suspend(client, tidewire_str("none"), &err), &err, TIDEWIRE_NOT_FOUND, "none"));
  tidewire_handler_t handler = TIDEWIRE_HANDLER_INIT;
  CHECK("calls: a handler belongs elsewhere", tidewire_handler_set(client, tidewire_str("h"), &handler, &err) == TIDEWIRE_INVALID_ARGUMENT);
  tidewire_error_free(err);
  err = NULL;
  CHECK("calls: flush gives up", is(tidewire_flush(client, 10, &err), &err, TIDEWIRE_TIMEOUT, "wait"));
}

static void test_processes(tidewire_engine_t *engine, tidewire_engine_t *client) {
  tidewire_error_t *err = NULL;
  uint64_t before = accepted_of(engine);
  pid_t pids[3];
  for (int n = 0; n < 3; n++) pids[n] = start("publish");
  int good = 1;
  for (int n = 0; n < 3; n++) good &= status_of(pids[n]) == 0;
  CHECK("processes: three publish", good);
  CHECK("processes: everything came", comes_to(engine, before + 900));

  char token[TIDEWIRE_TOKEN_BYTES] = "";
  int status = status_of(start("die"));
  CHECK("processes: one dies", WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  for (int n = 0; n < 3000 && !token[0]; n++) {
    tidewire_in_doubt(client, count, token, NULL);
    sleep_ms(10);
  }
  CHECK("processes: its durable reservation is in doubt", token[0] != 0);
  CHECK("processes: what it had published came", comes_to(engine, before + 901));
  tidewire_event_t event = event_of("b", "child");
  CHECK("processes: the operation came to be", is(tidewire_resolve_commit(client, tidewire_str(token), &event, &err), &err, TIDEWIRE_OK, ""));
  CHECK("processes: it is said twice", is(tidewire_resolve_commit(client, tidewire_str(token), &event, &err), &err, TIDEWIRE_OK, ""));
  CHECK("processes: it is accepted once", accepted_of(engine) == before + 902);

  /* A forked child has no connection. */
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    tidewire_result_t r = tidewire_publish(client, &event, NULL, NULL, NULL);
    tidewire_result_t c = tidewire_close(&client, 0, NULL);
    _exit(r == TIDEWIRE_WRONG_PROCESS && c == TIDEWIRE_WRONG_PROCESS ? 0 : 1);
  }
  CHECK("processes: a forked child is told", status_of(pid) == 0);
}

static void test_end(tidewire_engine_t **engine, tidewire_engine_t *client) {
  tidewire_error_t *err = NULL;
  tidewire_event_t event = event_of("b", "k");
  tidewire_publish_options_t options = TIDEWIRE_PUBLISH_OPTIONS_INIT;
  CHECK("end: the engine is closed", is(tidewire_close(engine, 0, &err), &err, TIDEWIRE_OK, ""));
  options.ack = TIDEWIRE_ACK_MEMORY;
  options.full_timeout_ms = 1;
  tidewire_result_t result = TIDEWIRE_OK;
  for (int n = 0; n < 3000 && result == TIDEWIRE_OK; n++) {
    result = tidewire_publish(client, &event, &options, NULL, NULL);
    sleep_ms(1);
  }
  CHECK("end: publishing says so", is(tidewire_publish(client, &event, &options, NULL, &err), &err, TIDEWIRE_DISCONNECTED, "no engine is connected"));
  CHECK("end: other calls too", is(tidewire_rules_json(client, &(char *){NULL}, NULL, &err), &err, TIDEWIRE_DISCONNECTED, ""));
  CHECK("end: it is opened anew", is(open_in(directory("data"), config, engine, &err), &err, TIDEWIRE_OK, ""));
  options.full_timeout_ms = 30000;
  options.ack = TIDEWIRE_ACK_SYNCED;
  CHECK("end: the client goes on", is(tidewire_publish(client, &event, &options, NULL, &err), &err, TIDEWIRE_OK, ""));
}

static void test_take_over(void) {
  tidewire_error_t *err = NULL;
  tidewire_engine_t *all[2] = {NULL, NULL};
  tidewire_event_t event = event_of("b", "k");
  char text[4096];
  snprintf(text, sizeof text, "[engine]\nshards = 1\nshared = { socket = \"%s/t\" }\n%s", scratch, strstr(CONFIG, "[[destination]]"));
  for (int n = 0; n < 2; n++) {
    tidewire_options_t options = TIDEWIRE_OPTIONS_INIT;
    options.config_text = tidewire_str(text);
    options.data_dir = tidewire_str(directory("taken"));
    options.shared = 1;
    CHECK("take over: open", is(tidewire_open(&options, &all[n], &err), &err, TIDEWIRE_OK, ""));
    CHECK("take over: publish", is(tidewire_publish(all[n], &event, NULL, NULL, &err), &err, TIDEWIRE_OK, ""));
  }
  CHECK("take over: the first ends", is(tidewire_close(&all[0], 0, &err), &err, TIDEWIRE_OK, ""));
  CHECK("take over: the second goes on", is(tidewire_publish(all[1], &event, NULL, NULL, &err), &err, TIDEWIRE_OK, ""));
  CHECK("take over: and ends", is(tidewire_close(&all[1], 0, &err), &err, TIDEWIRE_OK, ""));
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  program = argv[0];
  scratch = argv[1];
  snprintf(address, sizeof address, "unix:%s/s", scratch);
  if (argc > 2) return child(argv[2]);
  snprintf(config, sizeof config, "[engine]\nshards = 2\nshared = { socket = \"%s/s\" }\n%s", scratch, strstr(CONFIG, "[[destination]]"));
  test_open();
  tidewire_engine_t *engine = NULL, *client = NULL;
  tidewire_error_t *err = NULL;
  CHECK("the engine is opened", is(open_in(directory("data"), config, &engine, &err), &err, TIDEWIRE_OK, ""));
  CHECK("a client connects", is(connect_to(address, 0, &client, &err), &err, TIDEWIRE_OK, ""));
  if (engine != NULL && client != NULL) {
    test_calls(engine, client);
    test_processes(engine, client);
    test_end(&engine, client);
  }
  CHECK("the client is closed", is(tidewire_close(&client, TIDEWIRE_TIMEOUT_CONFIGURED, &err), &err, TIDEWIRE_OK, ""));
  CHECK("the engine is closed", is(tidewire_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
  test_take_over();
  printf("%u passed, %u failed\n", passed, failed);
  return failed != 0;
}
