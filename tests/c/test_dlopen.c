/* The library as a plug-in loads it: with dlopen and RTLD_LOCAL, without being linked with it.
 *
 *   test_dlopen SCRATCH-DIRECTORY
 *
 * Prints a line per check, then `N passed, M failed`.
 */
#include <dlfcn.h>
#include <unistd.h>

#include <tidewire.h>

static tidewire_result_t (*p_open)(const tidewire_options_t *, tidewire_engine_t **, tidewire_error_t **);
static const char *(*p_error_message)(const tidewire_error_t *);
static tidewire_result_t (*p_error_code)(const tidewire_error_t *);
static void (*p_error_free)(tidewire_error_t *);

/* What check.h calls is called through these. */
#define tidewire_open p_open
#define tidewire_error_message p_error_message
#define tidewire_error_code p_error_code
#define tidewire_error_free p_error_free
#include "check.h"

static tidewire_result_t (*p_publish)(const tidewire_engine_t *, const tidewire_event_t *, const tidewire_publish_options_t *,
                                      tidewire_outcome_t *, tidewire_error_t **);
static tidewire_result_t (*p_close)(tidewire_engine_t **, uint64_t, tidewire_error_t **);
static const char *(*p_version)(void);

/* A function pointer of an object pointer, which ISO C does not convert. */
static int find(void *library, const char *name, void *function) {
  void *found = dlsym(library, name);
  memcpy(function, &found, sizeof found);
  return found != NULL;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  scratch = argv[1];
  for (int round = 0; round < 3; round++) {
    void *library = dlopen("libtidewire.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) printf("     %s\n", dlerror());
    CHECK("dlopen: loaded", library != NULL);
    CHECK("dlopen: it has its functions",
          library && find(library, "tidewire_open", &p_open) && find(library, "tidewire_publish", &p_publish) &&
              find(library, "tidewire_close", &p_close) && find(library, "tidewire_version", &p_version) &&
              find(library, "tidewire_error_message", &p_error_message) && find(library, "tidewire_error_code", &p_error_code) &&
              find(library, "tidewire_error_free", &p_error_free));
    if (failed) break;
    CHECK("dlopen: others do not see them", dlsym(RTLD_DEFAULT, "tidewire_version") == NULL);
    tidewire_engine_t *engine = NULL;
    tidewire_error_t *err = NULL;
    CHECK("dlopen: an engine opens", is(open_in(directory("dlopen"), CONFIG, &engine, &err), &err, TIDEWIRE_OK, ""));
    tidewire_event_t event = event_of("b", "k");
    CHECK("dlopen: it publishes", is(p_publish(engine, &event, NULL, NULL, &err), &err, TIDEWIRE_OK, ""));
    CHECK("dlopen: it closes", is(p_close(&engine, 0, &err), &err, TIDEWIRE_OK, ""));
    const char *before = p_version();
    CHECK("dlopen: unloaded", dlclose(library) == 0);
    /* Helper threads may still be leaving. */
    CHECK("dlopen: its code is still there", p_version() == before && before[0] != 0);
  }
  printf("%u passed, %u failed\n", passed, failed);
  return failed ? 1 : 0;
}
