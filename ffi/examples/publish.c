/* Publishes 1000 events to a webhook, waits until they are delivered, and prints what was counted.
 *
 *   cc publish.c -I../../include -L../../target/release -ltidewire -o publish
 *   ./publish http://127.0.0.1:8080/ /tmp/tidewire-example
 */
#include <stdio.h>
#include <stdlib.h>
#include <tidewire.h>

/* Ends the program if a call failed. */
static void check(tidewire_result_t result, tidewire_error_t *err, const char *what) {
  if (result == TIDEWIRE_OK) return;
  fprintf(stderr, "%s: error %u: %s\n", what, (unsigned)result, tidewire_error_message(err));
  tidewire_error_free(err);
  exit(EXIT_FAILURE);
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s WEBHOOK-URL DATA-DIRECTORY\n", argv[0]);
    return 2;
  }
  char config[1024];
  int len = snprintf(config, sizeof config,
                     "[[destination]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"%s\"\n"
                     "[[rule]]\nid = \"created\"\nevents = [\"s3:ObjectCreated:*\"]\ndestinations = [\"hook\"]\n",
                     argv[1]);
  if (len < 0 || (size_t)len >= sizeof config) return 2;

  tidewire_error_t *err = NULL;
  tidewire_engine_t *engine = NULL;
  tidewire_options_t options = TIDEWIRE_OPTIONS_INIT;
  options.config_text = tidewire_bytes(config, (size_t)len);
  options.data_dir = tidewire_str(argv[2]);
  check(tidewire_open(&options, &engine, &err), err, "open");

  /* Without this, each call returns when its event is durable. Here the flush below is enough. */
  tidewire_publish_options_t fast = TIDEWIRE_PUBLISH_OPTIONS_INIT;
  fast.ack = TIDEWIRE_ACK_MEMORY;
  for (unsigned i = 0; i < 1000; i++) {
    /* Keys are any bytes: every tenth has a NUL, every eleventh a newline, every thirteenth is not UTF-8. */
    char key[32] = "photo/0000 .jpg";
    snprintf(key + 6, sizeof key - 6, "%04u", i);
    key[10] = i % 10 == 0 ? '\0' : i % 11 == 0 ? '\n' : i % 13 == 0 ? '\xff' : '-';
    tidewire_pair_t tag = {tidewire_str("colour"), tidewire_str("blue")};
    tidewire_event_t event = TIDEWIRE_EVENT_INIT;
    event.event_type = TIDEWIRE_EVENT_OBJECT_CREATED_PUT;
    event.bucket = tidewire_str("pictures");
    event.key = tidewire_bytes(key, 15);
    event.has_size = 1;
    event.size = 1024 + i;
    event.etag = tidewire_str("9e107d9d372bb6826bd81d3542a419d6");
    event.tags = &tag;
    event.tags_count = 1;
    check(tidewire_publish(engine, &event, &fast, NULL, &err), err, "publish");
  }
  check(tidewire_flush(engine, 30000, &err), err, "flush");

  tidewire_stats_t stats = TIDEWIRE_STATS_INIT;
  check(tidewire_stats(engine, &stats, &err), err, "stats");
  printf("accepted %llu, delivered %llu, waiting %llu, slowest %llu us\n", (unsigned long long)stats.accepted,
         (unsigned long long)stats.delivered, (unsigned long long)stats.waiting,
         (unsigned long long)stats.latency_us_max);
  check(tidewire_close(&engine, TIDEWIRE_TIMEOUT_CONFIGURED, &err), err, "close");
  return EXIT_SUCCESS;
}
