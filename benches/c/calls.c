/* What each call costs a host in C, on 1 to 4 threads, beside rd_kafka_produce of librdkafka in the same run.
 *
 *   calls DIRECTORY [ROUNDS]      # prints figures as the table of benches/run reads them
 *
 * The event takes 300 bytes encoded; librdkafka gets the same bytes with the same key, and its producer sends them to the mock
 * of a cluster that it brings. Tidewire's destination is down, so that what is published is matched and logged. Calls are
 * made one at a time with a pause after each, so that no queue is full, and are timed with the counter of the processor. A call
 * of nothing, timed alike, tells what is in each figure of the bench itself. The sides take turns; figures are the medians of the
 * rounds.
 */
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tidewire.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define FRAME_BYTES 300
#define CALLS 20000 /* of a thread in a round */
#define PAUSE_NS 2500 /* after a call, times the number of threads */
#define ROUNDS_MAX 101

static tidewire_engine_t *engine;
static tidewire_completions_t *completions;
static tidewire_event_t event = TIDEWIRE_EVENT_INIT, unwanted;
static rd_kafka_t *kafka;
static rd_kafka_topic_t *topic;
static char payload[FRAME_BYTES];
static double ticks_per_ns;
static uint64_t clock_ticks;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t ticks(void) {
  unsigned processor;
  return __rdtscp(&processor);
}

static void calibrate(void) {
  uint64_t ns = now_ns(), begin = ticks();
  while (now_ns() - ns < 50000000) continue;
  ticks_per_ns = (double)(ticks() - begin) / (double)(now_ns() - ns);
  clock_ticks = UINT64_MAX;
  for (int i = 0; i < 10000; i++) {
    uint64_t from = ticks(), took = ticks() - from;
    if (took < clock_ticks) clock_ticks = took;
  }
}

/* --- what is timed: each answers whether it was done */

static const tidewire_publish_options_t memory = {.struct_size = sizeof memory, .ack = TIDEWIRE_ACK_MEMORY,
                                                  .on_full = TIDEWIRE_ON_FULL_REFUSE};
static const tidewire_publish_options_t synced = {.struct_size = sizeof synced, .ack = TIDEWIRE_ACK_SYNCED,
                                                  .on_full = TIDEWIRE_ON_FULL_REFUSE};

static bool nothing(void) { return true; }
static bool publish(void) { return tidewire_publish(engine, &event, &memory, NULL, NULL) == TIDEWIRE_OK; }
static bool publish_unwanted(void) { return tidewire_publish(engine, &unwanted, &memory, NULL, NULL) == TIDEWIRE_OK; }
static bool interested(void) { return tidewire_is_interested(engine, &event); }
static bool submit(void) { return tidewire_submit(engine, &event, &synced, completions, 1, NULL, NULL) == TIDEWIRE_OK; }

static bool reserve_commit(void) {
  tidewire_reservation_t *reservation;
  tidewire_commit_t fields = TIDEWIRE_COMMIT_INIT;
  fields.has_size = 1;
  fields.size = 48213;
  fields.etag = event.etag;
  bool done = tidewire_reserve(engine, &event, NULL, &reservation, NULL) == TIDEWIRE_OK &&
              tidewire_commit(reservation, &fields, &memory, NULL) == TIDEWIRE_OK;
  tidewire_reservation_free(&reservation);
  return done;
}

static bool reserve_abort(void) {
  tidewire_reservation_t *reservation;
  bool done = tidewire_reserve(engine, &event, NULL, &reservation, NULL) == TIDEWIRE_OK;
  tidewire_reservation_free(&reservation);
  return done;
}

static bool produce(void) {
  return rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, payload, sizeof payload, event.key.data, event.key.len,
                          NULL) == 0;
}

static const struct {
  const char *name;
  bool (*call)(void);
} calls[] = {
    {"a call of nothing", nothing},
    {"publish at memory", publish},
    {"publish, no rule", publish_unwanted},
    {"is_interested", interested},
    {"submit at synced", submit},
    {"reserve + commit at memory", reserve_commit},
    {"reserve + abort", reserve_abort},
    {"rd_kafka_produce", produce},
};
enum { CALLS_COUNT = sizeof calls / sizeof *calls, PEER = CALLS_COUNT - 1 };

/* --- timing */

typedef struct {
  bool (*call)(void);
  unsigned threads, failed;
  uint32_t took[CALLS];
} run_t;

static void *run(void *data) {
  run_t *this = data;
  for (int i = 0; i < CALLS; i++) {
    uint64_t from = ticks();
    bool done = this->call();
    uint64_t took = ticks() - from;
    took = took > clock_ticks ? took - clock_ticks : 1;
    this->took[i] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    this->failed += !done;
    uint64_t until = now_ns() + PAUSE_NS * this->threads;
    while (now_ns() < until) _mm_pause();
  }
  return NULL;
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* One round of a call: p50 and p99 in nanoseconds. */
static void measure(bool (*call)(void), unsigned threads, double *p50, double *p99, unsigned *failed) {
  static run_t runs[4];
  static uint32_t all[4 * CALLS];
  pthread_t thread[4];
  for (unsigned t = 0; t < threads; t++) {
    runs[t].call = call;
    runs[t].threads = threads;
    runs[t].failed = 0;
    if (pthread_create(&thread[t], NULL, run, &runs[t]) != 0) abort();
  }
  for (unsigned t = 0; t < threads; t++) {
    pthread_join(thread[t], NULL);
    memcpy(all + t * CALLS, runs[t].took, sizeof runs[t].took);
    *failed += runs[t].failed;
  }
  qsort(all, threads * CALLS, sizeof *all, by_size);
  *p50 = all[threads * CALLS / 2] / ticks_per_ns;
  *p99 = all[threads * CALLS / 100 * 99] / ticks_per_ns;
}

static double median(double *values, unsigned count) {
  qsort(values, count, sizeof *values, by_value);
  return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* --- what it needs */

static void *take(void *data) {
  (void)data;
  for (;;) {
    tidewire_completion_t done[256];
    size_t count = 0;
    if (tidewire_completions_take(completions, done, 256, &count, NULL) != TIDEWIRE_OK) return NULL;
    if (count == 0) usleep(1000);
  }
}

static void fail(const char *what, tidewire_error_t *err) {
  fprintf(stderr, "%s: %s\n", what, err ? tidewire_error_message(err) : "");
  exit(1);
}

static void open_engine(const char *directory) {
  const char *config =
      "[engine]\nshards = 1\nidle = \"spin\"\n"
      "[[destination]]\nname = \"down\"\ntype = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n"
      "[[rule]]\nid = \"all\"\nbucket = \"photos\"\nevents = [\"s3:ObjectCreated:*\"]\ndestinations = [\"down\"]\n";
  tidewire_error_t *err = NULL;
  tidewire_options_t options = TIDEWIRE_OPTIONS_INIT;
  options.config_text = tidewire_str(config);
  options.data_dir = tidewire_str(directory);
  if (tidewire_open(&options, &engine, &err) != TIDEWIRE_OK) fail("open", err);
  if (tidewire_completions_open(engine, NULL, &completions, &err) != TIDEWIRE_OK) fail("completions", err);

  event.event_type = TIDEWIRE_EVENT_OBJECT_CREATED_PUT;
  event.bucket = tidewire_str("photos");
  event.key = tidewire_str("2026/november/cats/tom-on-the-fence.jpg");
  event.has_size = 1;
  event.size = 48213;
  event.time_ns = 1750000000123456789u;
  event.etag = tidewire_str("0f343b0931126a20f133d67c2b018a3b");
  event.requester = tidewire_str("arn:aws:iam::1:user/tom");
  event.source_ip = tidewire_str("192.0.2.7");
  event.request_id = tidewire_str("C3D13FE58DE4C810");
  /* Fills up to the size that is wanted, which a reservation of so many bytes tells. */
  static char agent[FRAME_BYTES];
  memset(agent, 'a', sizeof agent);
  tidewire_reserve_options_t exact = TIDEWIRE_RESERVE_OPTIONS_INIT;
  exact.bytes_max = FRAME_BYTES;
  for (size_t len = FRAME_BYTES; len-- > 1;) {
    tidewire_reservation_t *reservation;
    event.user_agent = tidewire_bytes(agent, len);
    tidewire_result_t result = tidewire_reserve(engine, &event, &exact, &reservation, NULL);
    tidewire_reservation_free(&reservation);
    if (result == TIDEWIRE_OK) {
      exact.bytes_max = FRAME_BYTES - 8;
      if (tidewire_reserve(engine, &event, &exact, &reservation, NULL) == TIDEWIRE_OK) fail("the event is too small", NULL);
      break;
    }
  }
  unwanted = event;
  unwanted.bucket = tidewire_str("others");
  /* More than the part of a log that is too small for a file to be made ready beside it. */
  for (int i = 0; i < 30000; i++) {
    tidewire_publish_options_t block = memory;
    block.on_full = TIDEWIRE_ON_FULL_BLOCK;
    if (tidewire_publish(engine, &event, &block, NULL, &err) != TIDEWIRE_OK) fail("publish", err);
  }
  if (tidewire_publish(engine, &event, NULL, NULL, &err) != TIDEWIRE_OK) fail("publish", err);
}

static void open_kafka(void) {
  char error[512];
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  const char *settings[][2] = {{"test.mock.num.brokers", "1"},
                               {"queue.buffering.max.messages", "5000000"},
                               {"queue.buffering.max.kbytes", "2000000"},
                               {"linger.ms", "5"},
                               {"log_level", "3"}};
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    if (rd_kafka_conf_set(conf, settings[i][0], settings[i][1], error, sizeof error) != RD_KAFKA_CONF_OK) {
      fprintf(stderr, "%s\n", error);
      exit(1);
    }
  }
  kafka = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof error);
  topic = kafka ? rd_kafka_topic_new(kafka, "events", NULL) : NULL;
  if (!topic) {
    fprintf(stderr, "librdkafka: %s\n", error);
    exit(1);
  }
  memset(payload, 'p', sizeof payload);
  for (int i = 0; i < 30000; i++) produce();
  rd_kafka_flush(kafka, 30000);
}

int main(int argc, char **argv) {
  unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 15;
  if (argc < 2 || rounds < 1 || rounds > ROUNDS_MAX) {
    fprintf(stderr, "usage: %s DIRECTORY [ROUNDS]\n", argv[0]);
    return 2;
  }
  calibrate();
  open_engine(argv[1]);
  open_kafka();
  pthread_t taker;
  pthread_create(&taker, NULL, take, NULL);

  printf("[");
  unsigned failed[CALLS_COUNT] = {0};
  for (unsigned threads = 1; threads <= 4; threads++) {
    static double p50[CALLS_COUNT][ROUNDS_MAX], p99[CALLS_COUNT][ROUNDS_MAX];
    for (unsigned round = 0; round < rounds; round++) {
      for (unsigned c = 0; c < CALLS_COUNT; c++) {
        /* The peer comes before and after: what is beside each other in the table was measured beside each other. */
        measure(calls[c].call, threads, &p50[c][round], &p99[c][round], &failed[c]);
        if (c == PEER) rd_kafka_flush(kafka, 30000);
      }
    }
    double peer50 = median(p50[PEER], rounds), peer99 = median(p99[PEER], rounds);
    for (unsigned c = 0; c < PEER; c++) {
      const char *form = "%s\n  {\"name\": \"%s, %u threads, %s\", \"value\": %.1f, \"unit\": \"ns\", "
                         "\"beside\": \"rd_kafka_produce\", \"beside_value\": %.1f}";
      printf(form, threads == 1 && c == 0 ? "" : ",", calls[c].name, threads, "p50", median(p50[c], rounds), peer50);
      printf(form, ",", calls[c].name, threads, "p99", median(p99[c], rounds), peer99);
    }
    fflush(stdout);
  }
  printf("\n]\n");
  for (unsigned c = 0; c < CALLS_COUNT; c++) {
    if (failed[c]) fprintf(stderr, "%s: %u calls were refused\n", calls[c].name, failed[c]);
  }
  /* The rest of what was published need not be delivered, and the thread that takes completions ends with the process. */
  fflush(stdout);
  _exit(0);
}
