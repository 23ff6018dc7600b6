/* In the place of libtidewire for one bench: the least that a durable log costs a host with an event loop. Nothing is matched
 * and nothing delivered. Each commit appends RECORD_BYTES to a buffer; a thread writes what has gathered and syncs it, in one
 * write and one fdatasync, while the next gathers; then a descriptor tells the host. Preloaded, it takes the place of the
 * functions that ngx_http_tidewire_module calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <tidewire.h>
#include <unistd.h>

#define RECORD_BYTES 512
#define WAITING_MAX 65536
#define LOG_BYTES (256 << 20)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static pthread_t syncer;
static uint64_t waiting[WAITING_MAX], done[WAITING_MAX];
static size_t waiting_count, done_count;
static int log_fd = -1, event_fd = -1;
static int ending;
/* Anything that is not NULL. */
static char held;

static void *sync_groups(void *data) {
  static char buffer[WAITING_MAX * RECORD_BYTES];
  static uint64_t group[WAITING_MAX];
  off_t at = 0;
  (void)data;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (waiting_count == 0 && !ending) pthread_cond_wait(&more, &lock);
    if (waiting_count == 0) break;
    size_t count = waiting_count;
    memcpy(group, waiting, count * sizeof *group);
    waiting_count = 0;
    pthread_mutex_unlock(&lock);

    size_t bytes = (count * RECORD_BYTES + 4095) / 4096 * 4096;
    if (at + (off_t)bytes > LOG_BYTES) at = 0;
    if (pwrite(log_fd, buffer, bytes, at) != (ssize_t)bytes || fdatasync(log_fd) != 0) abort();
    at += (off_t)bytes;

    pthread_mutex_lock(&lock);
    memcpy(done + done_count, group, count * sizeof *group);
    done_count += count;
    uint64_t one = 1;
    if (write(event_fd, &one, sizeof one) != sizeof one) abort();
  }
  pthread_mutex_unlock(&lock);
  return NULL;
}

tidewire_result_t tidewire_open(const tidewire_options_t *options, tidewire_engine_t **engine_out, tidewire_error_t **err) {
  char path[4096];
  if (err) *err = NULL;
  snprintf(path, sizeof path, "%.*s", (int)options->data_dir.len, (const char *)options->data_dir.data);
  mkdir(path, 0700);
  strncat(path, "/log", sizeof path - strlen(path) - 1);
  log_fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  /* Written before, so that a sync has no blocks to allocate, as in a log that prepares its files. */
  static char zeros[1 << 20];
  for (off_t at = 0; at < LOG_BYTES; at += sizeof zeros) {
    if (pwrite(log_fd, zeros, sizeof zeros, at) != sizeof zeros) return TIDEWIRE_IO;
  }
  event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (log_fd < 0 || event_fd < 0 || fsync(log_fd) != 0 || pthread_create(&syncer, NULL, sync_groups, NULL) != 0) return TIDEWIRE_IO;
  *engine_out = (tidewire_engine_t *)&held;
  return TIDEWIRE_OK;
}

tidewire_result_t tidewire_close(tidewire_engine_t **engine, uint64_t timeout_ms, tidewire_error_t **err) {
  (void)timeout_ms;
  if (err) *err = NULL;
  *engine = NULL;
  pthread_mutex_lock(&lock);
  ending = 1;
  pthread_cond_signal(&more);
  pthread_mutex_unlock(&lock);
  pthread_join(syncer, NULL);
  return TIDEWIRE_OK;
}

bool tidewire_is_interested(const tidewire_engine_t *engine, const tidewire_event_t *event) {
  (void)engine, (void)event;
  return true;
}

tidewire_result_t tidewire_reserve(const tidewire_engine_t *engine, const tidewire_event_t *event,
                                   const tidewire_reserve_options_t *options, tidewire_reservation_t **reservation_out,
                                   tidewire_error_t **err) {
  (void)engine, (void)event, (void)options;
  if (err) *err = NULL;
  *reservation_out = (tidewire_reservation_t *)&held;
  return TIDEWIRE_OK;
}

tidewire_result_t tidewire_commit_submit(const tidewire_reservation_t *reservation, const tidewire_commit_t *fields,
                                         const tidewire_publish_options_t *options, const tidewire_completions_t *completions,
                                         uint64_t user_data, tidewire_error_t **err) {
  (void)reservation, (void)fields, (void)options, (void)completions;
  if (err) *err = NULL;
  pthread_mutex_lock(&lock);
  if (waiting_count == WAITING_MAX) abort();
  waiting[waiting_count++] = user_data;
  if (waiting_count == 1) pthread_cond_signal(&more);
  pthread_mutex_unlock(&lock);
  return TIDEWIRE_OK;
}

void tidewire_reservation_free(tidewire_reservation_t **reservation) { *reservation = NULL; }

tidewire_result_t tidewire_completions_open(const tidewire_engine_t *engine, const tidewire_completions_options_t *options,
                                            tidewire_completions_t **completions_out, tidewire_error_t **err) {
  (void)engine, (void)options;
  if (err) *err = NULL;
  *completions_out = (tidewire_completions_t *)&held;
  return TIDEWIRE_OK;
}

int tidewire_completions_fd(const tidewire_completions_t *completions) {
  (void)completions;
  return event_fd;
}

tidewire_result_t tidewire_completions_take(const tidewire_completions_t *completions, tidewire_completion_t *completions_out,
                                            size_t max, size_t *count_out, tidewire_error_t **err) {
  uint64_t count;
  (void)completions;
  if (err) *err = NULL;
  if (read(event_fd, &count, sizeof count) < 0 && errno != EAGAIN) abort();
  pthread_mutex_lock(&lock);
  size_t taken = done_count < max ? done_count : max;
  for (size_t i = 0; i < taken; i++) {
    completions_out[i] = (tidewire_completion_t){.user_data = done[i], .result = TIDEWIRE_OK};
  }
  done_count -= taken;
  memmove(done, done + taken, done_count * sizeof *done);
  pthread_mutex_unlock(&lock);
  *count_out = taken;
  return TIDEWIRE_OK;
}

void tidewire_completions_free(tidewire_completions_t **completions) { *completions = NULL; }
