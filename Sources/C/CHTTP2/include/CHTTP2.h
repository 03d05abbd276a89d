// DNS over HTTPS (RFC 8484) as a client of nghttp2, without a socket: each query is a POST of its own on one connection.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chttp2; // one connection

// Called when a stream has ended. `status` is HTTP's, or 0 where the server has ended it without a whole response, or has not
// taken it. `body` is the response's where it is 200 and application/dns-message, and empty otherwise.
typedef void (*chttp2_finished)(void *context, int32_t stream, int status, const uint8_t *body, size_t size);

// NULL when memory is short.
struct chttp2 *chttp2_open(void *context, chttp2_finished finished);
void chttp2_close(struct chttp2 *connection);

// Begins a request. Returns its stream, or a negative number where there can be no more of them on this connection.
int32_t chttp2_post(struct chttp2 *connection, const char *authority, const char *path, const uint8_t *body, size_t size);
// Takes what came from the server; false where it breaks the protocol, which ends the connection.
bool chttp2_feed(struct chttp2 *connection, const uint8_t *bytes, size_t size);
// Gives what is to be sent, in memory that holds until the next call: its size, 0 for nothing, or negative on a failure.
long chttp2_drain(struct chttp2 *connection, const uint8_t **bytes);
// Whether new requests may be begun: the server has not said that it goes away.
bool chttp2_is_open(struct chttp2 *connection);
// Why the last call has failed; never NULL.
const char *chttp2_reason(const struct chttp2 *connection);
