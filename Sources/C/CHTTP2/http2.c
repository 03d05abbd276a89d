#include "CHTTP2.h"
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// What DNS messages have at most.
enum { BODY_LIMIT = 65535 };

struct chttp2 {
  nghttp2_session *session;
  void *context;
  chttp2_finished finished;
  int failure;
  struct request *requests; // under way
};

struct request {
  struct request *next, **place;
  uint8_t *body;
  size_t size, sent;
  int status;
  bool is_dns, is_whole, is_too_long;
  uint8_t *response;
  size_t response_size;
};

static void release(struct request *request) {
  if (request->place) *request->place = request->next;
  if (request->next) request->next->place = request->place;
  free(request->body);
  free(request->response);
  free(request);
}

static bool is(const uint8_t *text, size_t size, const char *word) { return size == strlen(word) && memcmp(text, word, size) == 0; }

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                     const uint8_t *value, size_t value_size, uint8_t flags, void *user) {
  (void)flags;
  (void)user;
  struct request *request = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (!request) return 0;
  if (is(name, name_size, ":status") && value_size == 3) {
    // nghttp2 has checked that these are digits. One of 1xx is followed by another.
    request->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
  } else if (is(name, name_size, "content-type")) {
    static const char type[] = "application/dns-message";
    size_t length = sizeof type - 1;
    request->is_dns = value_size >= length && memcmp(value, type, length) == 0 && (value_size == length || value[length] == ';');
  }
  return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t size, void *user) {
  (void)flags;
  (void)user;
  struct request *request = nghttp2_session_get_stream_user_data(session, stream);
  if (!request || request->status != 200 || !request->is_dns || request->is_too_long) return 0;
  if (size > BODY_LIMIT - request->response_size) {
    request->is_too_long = true;
    return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
  }
  uint8_t *grown = realloc(request->response, request->response_size + size + 1);
  if (!grown) return NGHTTP2_ERR_CALLBACK_FAILURE;
  request->response = grown;
  memcpy(grown + request->response_size, bytes, size);
  request->response_size += size;
  return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  (void)user;
  if ((frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
    return 0;
  struct request *request = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (request) request->is_whole = true;
  return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user) {
  (void)code;
  struct chttp2 *connection = user;
  struct request *request = nghttp2_session_get_stream_user_data(session, stream);
  if (!request) return 0;
  nghttp2_session_set_stream_user_data(session, stream, NULL);
  int status = request->is_whole ? request->status : 0;
  bool has_body = status == 200 && request->is_dns && !request->is_too_long;
  connection->finished(connection->context, stream, status, has_body ? request->response : NULL,
                       has_body ? request->response_size : 0);
  release(request);
  return 0;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *buffer, size_t capacity, uint32_t *flags,
                         nghttp2_data_source *source, void *user) {
  (void)session;
  (void)stream;
  (void)user;
  struct request *request = source->ptr;
  size_t count = request->size - request->sent;
  if (count > capacity) count = capacity;
  memcpy(buffer, request->body + request->sent, count);
  request->sent += count;
  if (request->sent == request->size) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return (ssize_t)count;
}

struct chttp2 *chttp2_open(void *context, chttp2_finished finished) {
  struct chttp2 *connection = calloc(1, sizeof *connection);
  nghttp2_session_callbacks *callbacks = NULL;
  if (!connection || nghttp2_session_callbacks_new(&callbacks) != 0) {
    free(connection);
    return NULL;
  }
  connection->context = context;
  connection->finished = finished;
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  int made = nghttp2_session_client_new(&connection->session, callbacks, connection);
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}, {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 16384}};
  if (made != 0 || nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2) != 0) {
    chttp2_close(connection);
    return NULL;
  }
  return connection;
}

void chttp2_close(struct chttp2 *connection) {
  if (!connection) return;
  // Who closes a connection knows what was under way on it.
  while (connection->requests) release(connection->requests);
  nghttp2_session_del(connection->session); // NULL is none
  free(connection);
}

static nghttp2_nv field(const char *name, const char *value) {
  return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE};
}

int32_t chttp2_post(struct chttp2 *connection, const char *authority, const char *path, const uint8_t *body, size_t size) {
  struct request *request = calloc(1, sizeof *request);
  if (!request) return -1;
  request->body = malloc(size + 1);
  if (!request->body) {
    release(request);
    return -1;
  }
  memcpy(request->body, body, size);
  request->size = size;
  char length[24];
  snprintf(length, sizeof length, "%zu", size);
  nghttp2_nv fields[] = {
      field(":method", "POST"),  field(":scheme", "https"),
      field(":authority", authority), field(":path", path),
      field("content-type", "application/dns-message"), field("accept", "application/dns-message"),
      field("content-length", length),
  };
  nghttp2_data_provider provider = {.source.ptr = request, .read_callback = read_body};
  int32_t stream = nghttp2_submit_request(connection->session, NULL, fields, sizeof fields / sizeof fields[0], &provider, request);
  if (stream < 0) {
    release(request);
    return stream;
  }
  request->next = connection->requests;
  request->place = &connection->requests;
  if (request->next) request->next->place = &request->next;
  connection->requests = request;
  return stream;
}

bool chttp2_feed(struct chttp2 *connection, const uint8_t *bytes, size_t size) {
  ssize_t result = nghttp2_session_mem_recv(connection->session, bytes, size);
  if (result < 0) connection->failure = (int)result;
  return result >= 0;
}

long chttp2_drain(struct chttp2 *connection, const uint8_t **bytes) {
  ssize_t result = nghttp2_session_mem_send(connection->session, bytes);
  if (result < 0) connection->failure = (int)result;
  return (long)result;
}

bool chttp2_is_open(struct chttp2 *connection) {
  return nghttp2_session_check_request_allowed(connection->session) != 0 && nghttp2_session_want_read(connection->session) != 0;
}

const char *chttp2_reason(const struct chttp2 *connection) {
  return connection->failure ? nghttp2_strerror(connection->failure) : "nothing has failed";
}
