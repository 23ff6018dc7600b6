/* What the tests of the C interface share. Each file is a program of its own, called with a scratch directory. */
#ifndef TIDEWIRE_TESTS_CHECK_H
#define TIDEWIRE_TESTS_CHECK_H

#include <stdio.h>
#include <string.h>

#include <tidewire.h>

static unsigned passed, failed;
static const char *scratch;

#define CHECK(what, condition) check((what), (condition) ? 1 : 0, #condition, __LINE__)

static void check(const char *what, int ok, const char *condition, int line) {
  printf("%s %s\n", ok ? "ok  " : "FAIL", what);
  if (ok) {
    passed++;
  } else {
    failed++;
    printf("     line %d: %s\n", line, condition);
  }
  fflush(stdout);
}

/* Looks at a result and its error, and frees it: both have the code, and the message contains `part`. */
static inline int is(tidewire_result_t result, tidewire_error_t **err, tidewire_result_t expected, const char *part) {
  const char *message = tidewire_error_message(*err);
  int ok = result == expected && tidewire_error_code(*err) == expected && strstr(message, part) != NULL;
  if (expected == TIDEWIRE_OK) ok = ok && *err == NULL;
  if (!ok) printf("     result %u, error %u: %s\n", (unsigned)result, (unsigned)tidewire_error_code(*err), message);
  tidewire_error_free(*err);
  *err = NULL;
  return ok;
}

/* A directory of its own for each engine. */
static inline const char *directory(const char *name) {
  static char path[512];
  snprintf(path, sizeof path, "%s/%s", scratch, name);
  return path;
}

/* The destination refuses connections, which no check here minds. */
#define CONFIG CONFIG_OF("")
/* With more of the engine's settings. */
#define CONFIG_OF(more)                                                                                               \
  "[engine]\nshards = 2\n" more                                                                                       \
  "[[destination]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n"                             \
  "[[rule]]\nid = \"created\"\nbucket = \"b\"\nevents = [\"s3:ObjectCreated:*\"]\ndestinations = [\"hook\"]\n"

static inline tidewire_result_t open_in(const char *dir, const char *config, tidewire_engine_t **engine,
                                 tidewire_error_t **err) {
  tidewire_options_t options = TIDEWIRE_OPTIONS_INIT;
  options.config_text = tidewire_str(config);
  options.data_dir = tidewire_str(dir);
  return tidewire_open(&options, engine, err);
}

static inline tidewire_event_t event_of(const char *bucket, const char *key) {
  tidewire_event_t event = TIDEWIRE_EVENT_INIT;
  event.event_type = TIDEWIRE_EVENT_OBJECT_CREATED_PUT;
  event.bucket = tidewire_str(bucket);
  event.key = tidewire_str(key);
  return event;
}

#endif
