/* An object server that tells of what it stores: PUT, GET and DELETE of /bucket/key on a directory, through libmicrohttpd.
 *
 *   cc object_server.c -ltidewire -lmicrohttpd -pthread -o object_server
 *   ./object_server 8080 /srv/objects tidewire.toml
 *   curl -T cat.jpg http://127.0.0.1:8080/photos/cat.jpg
 *
 * What a server has to get right is in `put` and `delete_object`: it reserves the event before it does anything, so that a
 * refusal can still become a 503; it commits while it has the lock of the key, so that events come in the order of the
 * changes; and it answers when the commit has returned, so that the client is told of success when the event is durable.
 */
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tidewire.h>
#include <unistd.h>

#define LOCKS 64

static tidewire_engine_t *engine;
static const char *root;
static pthread_mutex_t locks[LOCKS];

/* An object: where it is, and by what name. */
typedef struct {
  const char *bucket, *key;
  size_t bucket_len;
  char path[1024];
  pthread_mutex_t *lock;
} object_t;

/* A PUT whose body is on its way. */
typedef struct {
  int fd;
  char path[1024];
  uint64_t size;
  int error;
} upload_t;

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *etag) {
  struct MHD_Response *response = MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
  if (etag) MHD_add_response_header(response, MHD_HTTP_HEADER_ETAG, etag);
  enum MHD_Result result = MHD_queue_response(connection, status, response);
  MHD_destroy_response(response);
  return result;
}

/* Finds the object of a URL, and makes a file name of its key: no byte of it can leave the directory. */
static bool object_of(const char *url, object_t *object) {
  const char *slash = url[0] == '/' ? strchr(url + 1, '/') : NULL;
  if (!slash || !slash[1]) return false;
  object->bucket = url + 1;
  object->bucket_len = (size_t)(slash - object->bucket);
  object->key = slash + 1;
  int len = snprintf(object->path, sizeof object->path, "%s/", root);
  unsigned hash = 5381;
  for (const char *c = object->bucket; *c; c++) {
    hash = hash * 33 + (unsigned char)*c;
    if (len < 0 || (size_t)len + 4 > sizeof object->path) return false;
    bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '-' || *c == '_';
    len += snprintf(object->path + len, 4, plain ? "%c" : "%%%02X", (unsigned char)*c);
  }
  object->lock = &locks[hash % LOCKS];
  return true;
}

static tidewire_event_t event_of(struct MHD_Connection *connection, const object_t *object, tidewire_event_type_t type) {
  tidewire_event_t event = TIDEWIRE_EVENT_INIT;
  event.event_type = type;
  event.bucket = tidewire_bytes(object->bucket, object->bucket_len);
  event.key = tidewire_str(object->key);
  event.content_type = tidewire_str(MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Type"));
  event.request_id = tidewire_str(MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "X-Request-Id"));
  return event;
}

/* Says what went wrong, and what the client is told. */
static unsigned failed(tidewire_result_t result, tidewire_error_t *err) {
  fprintf(stderr, "%s\n", tidewire_error_message(err));
  tidewire_error_free(err);
  if (result == TIDEWIRE_INVALID_EVENT) return MHD_HTTP_BAD_REQUEST;
  return result == TIDEWIRE_FULL ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_INTERNAL_SERVER_ERROR;
}

/* The body is there: it becomes the object. */
static enum MHD_Result put(struct MHD_Connection *connection, const object_t *object, upload_t *upload) {
  if (upload->error || fsync(upload->fd) != 0) {
    return answer(connection, MHD_HTTP_INSUFFICIENT_STORAGE, NULL);
  }
  tidewire_error_t *err = NULL;
  tidewire_reservation_t *reservation = NULL;
  tidewire_event_t event = event_of(connection, object, TIDEWIRE_EVENT_OBJECT_CREATED_PUT);
  tidewire_result_t result = tidewire_reserve(engine, &event, NULL, &reservation, &err);
  if (result != TIDEWIRE_OK) return answer(connection, failed(result, err), NULL);

  unsigned status = MHD_HTTP_INTERNAL_SERVER_ERROR;
  char etag[64] = "";
  pthread_mutex_lock(object->lock);
  struct stat file;
  if (fstat(upload->fd, &file) == 0 && rename(upload->path, object->path) == 0) {
    snprintf(etag, sizeof etag, "%llx-%llx", (unsigned long long)file.st_ino, (unsigned long long)upload->size);
    tidewire_commit_t fields = TIDEWIRE_COMMIT_INIT;
    fields.has_size = 1;
    fields.size = upload->size;
    fields.etag = tidewire_str(etag);
    result = tidewire_commit(reservation, &fields, NULL, &err);
    status = result == TIDEWIRE_OK ? MHD_HTTP_CREATED : failed(result, err);
  }
  pthread_mutex_unlock(object->lock);
  /* If nothing was committed, this aborts. */
  tidewire_reservation_free(&reservation);
  return answer(connection, status, etag);
}

static enum MHD_Result delete_object(struct MHD_Connection *connection, const object_t *object) {
  tidewire_error_t *err = NULL;
  tidewire_reservation_t *reservation = NULL;
  tidewire_event_t event = event_of(connection, object, TIDEWIRE_EVENT_OBJECT_REMOVED_DELETE);
  tidewire_result_t result = tidewire_reserve(engine, &event, NULL, &reservation, &err);
  if (result != TIDEWIRE_OK) return answer(connection, failed(result, err), NULL);

  unsigned status = MHD_HTTP_NOT_FOUND;
  pthread_mutex_lock(object->lock);
  if (unlink(object->path) == 0) {
    result = tidewire_commit(reservation, NULL, NULL, &err);
    status = result == TIDEWIRE_OK ? MHD_HTTP_NO_CONTENT : failed(result, err);
  }
  pthread_mutex_unlock(object->lock);
  tidewire_reservation_free(&reservation);
  return answer(connection, status, NULL);
}

static enum MHD_Result get(struct MHD_Connection *connection, const object_t *object) {
  struct stat file;
  int fd = open(object->path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &file) != 0) {
    if (fd >= 0) close(fd);
    return answer(connection, MHD_HTTP_NOT_FOUND, NULL);
  }
  struct MHD_Response *response = MHD_create_response_from_fd64((uint64_t)file.st_size, fd);
  enum MHD_Result result = MHD_queue_response(connection, MHD_HTTP_OK, response);
  MHD_destroy_response(response);
  return result;
}

/* Called when the header is there, with each part of the body, and once more after it. */
static enum MHD_Result handle(void *data, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *body, size_t *body_len, void **request) {
  (void)data, (void)version;
  object_t object;
  if (!object_of(url, &object)) return answer(connection, MHD_HTTP_BAD_REQUEST, NULL);
  if (strcmp(method, "GET") == 0) return get(connection, &object);
  if (strcmp(method, "DELETE") == 0) return delete_object(connection, &object);
  if (strcmp(method, "PUT") != 0) return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, NULL);

  upload_t *upload = *request;
  if (!upload) {
    upload = calloc(1, sizeof *upload);
    if (!upload) return MHD_NO;
    snprintf(upload->path, sizeof upload->path, "%s/.upload-XXXXXX", root);
    upload->fd = mkstemp(upload->path);
    upload->error = upload->fd < 0 ? errno : 0;
    *request = upload;
    return MHD_YES;
  }
  if (*body_len == 0) return put(connection, &object, upload);
  while (*body_len > 0 && !upload->error) {
    ssize_t written = write(upload->fd, body, *body_len);
    if (written < 0) {
      upload->error = errno;
    } else {
      body += written;
      *body_len -= (size_t)written;
      upload->size += (uint64_t)written;
    }
  }
  *body_len = 0;
  return MHD_YES;
}

/* Called when a request has ended, also when the client went away in the midst of it: then nothing was reserved yet. */
static void ended(void *data, struct MHD_Connection *connection, void **request, enum MHD_RequestTerminationCode code) {
  (void)data, (void)connection, (void)code;
  upload_t *upload = *request;
  if (!upload) return;
  if (upload->fd >= 0) close(upload->fd);
  unlink(upload->path); /* of an object that was stored nothing has this name any more */
  free(upload);
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: %s PORT DIRECTORY CONFIGURATION\n", argv[0]);
    return 2;
  }
  root = argv[2];
  for (size_t i = 0; i < LOCKS; i++) pthread_mutex_init(&locks[i], NULL);

  tidewire_error_t *err = NULL;
  tidewire_options_t options = TIDEWIRE_OPTIONS_INIT;
  options.config_path = tidewire_str(argv[3]);
  if (tidewire_open(&options, &engine, &err) != TIDEWIRE_OK) {
    fprintf(stderr, "%s %s\n", tidewire_error_message(err), tidewire_error_remedy(err));
    tidewire_error_free(err);
    return EXIT_FAILURE;
  }

  sigset_t end;
  sigemptyset(&end);
  sigaddset(&end, SIGINT);
  sigaddset(&end, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &end, NULL);
  /* A thread for each connection: those that wait for the disk share one sync. */
  struct MHD_Daemon *daemon =
      MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_ERROR_LOG,
                       (uint16_t)atoi(argv[1]), NULL, NULL, handle, NULL, MHD_OPTION_NOTIFY_COMPLETED, ended, NULL,
                       MHD_OPTION_END);
  if (daemon) {
    printf("ready\n");
    fflush(stdout);
    int signal;
    sigwait(&end, &signal);
    MHD_stop_daemon(daemon);
  }
  tidewire_close(&engine, TIDEWIRE_TIMEOUT_CONFIGURED, NULL);
  return daemon ? EXIT_SUCCESS : EXIT_FAILURE;
}
