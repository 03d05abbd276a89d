#include "CTLS.h"
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct ctls_roots { SSL_CTX *context; };

struct ctls_session {
  SSL *ssl;
  BIO *incoming, *outgoing; // both are the SSL's
  bool wants_protocol;
  const char *reason;
};

struct ctls_roots *ctls_roots_open(const uint8_t *pem, size_t size, int *count) {
  *count = 0;
  // No openssl.cnf: the image's own files must not say which checks are made.
  OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL);
  // glibc reads /etc/localtime at the first use, and certificates' dates are one: later no file may be opened any more.
  time_t now = time(NULL);
  struct tm parts;
  gmtime_r(&now, &parts);
  struct ctls_roots *roots = calloc(1, sizeof *roots);
  BIO *bundle = size > INT32_MAX ? NULL : BIO_new_mem_buf(pem, (int)size);
  if (roots) roots->context = SSL_CTX_new(TLS_client_method());
  if (!roots || !bundle || !roots->context) goto failed;
  SSL_CTX *context = roots->context;
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
  X509_STORE *store = SSL_CTX_get_cert_store(context);
  X509 *certificate;
  while ((certificate = PEM_read_bio_X509(bundle, NULL, NULL, NULL))) {
    int added = X509_STORE_add_cert(store, certificate);
    X509_free(certificate);
    if (!added) goto failed;
    ++*count;
  }
  // The end of a bundle is that no certificate begins any more; everything else is one that cannot be read.
  unsigned long last = ERR_peek_last_error();
  if (*count == 0 || ERR_GET_LIB(last) != ERR_LIB_PEM || ERR_GET_REASON(last) != PEM_R_NO_START_LINE) goto failed;
  ERR_clear_error();
  BIO_free(bundle);
  return roots;
failed:
  ERR_clear_error();
  BIO_free(bundle);
  ctls_roots_close(roots);
  return NULL;
}

void ctls_roots_close(struct ctls_roots *roots) {
  if (!roots) return;
  SSL_CTX_free(roots->context);
  free(roots);
}

struct ctls_session *ctls_session_open(struct ctls_roots *roots, const char *name, const uint8_t *address,
                                       size_t address_size, const char *protocol) {
  struct ctls_session *session = calloc(1, sizeof *session);
  if (!session) return NULL;
  session->reason = "nothing has failed";
  session->ssl = SSL_new(roots->context);
  BIO *incoming = BIO_new(BIO_s_mem()), *outgoing = BIO_new(BIO_s_mem());
  if (!session->ssl || !incoming || !outgoing) {
    BIO_free(incoming);
    BIO_free(outgoing);
    goto failed;
  }
  // An empty one is no end: more may come.
  BIO_set_mem_eof_return(incoming, -1);
  SSL_set_bio(session->ssl, incoming, outgoing);
  session->incoming = incoming;
  session->outgoing = outgoing;
  X509_VERIFY_PARAM *verify = SSL_get0_param(session->ssl);
  X509_VERIFY_PARAM_set_hostflags(verify, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  if ((name != NULL) == (address != NULL)) goto failed;
  if (name && (!X509_VERIFY_PARAM_set1_host(verify, name, 0) || !SSL_set_tlsext_host_name(session->ssl, name))) goto failed;
  if (address && !X509_VERIFY_PARAM_set1_ip(verify, address, address_size)) goto failed;
  if (protocol) {
    uint8_t list[256];
    size_t length = strlen(protocol);
    if (length == 0 || length > 255) goto failed;
    list[0] = (uint8_t)length;
    memcpy(list + 1, protocol, length);
    if (SSL_set_alpn_protos(session->ssl, list, (unsigned)length + 1) != 0) goto failed; // 0 is success here
    session->wants_protocol = true;
  }
  SSL_set_connect_state(session->ssl);
  return session;
failed:
  ERR_clear_error();
  ctls_session_close(session);
  return NULL;
}

void ctls_session_close(struct ctls_session *session) {
  if (!session) return;
  SSL_free(session->ssl);
  free(session);
}

bool ctls_feed(struct ctls_session *session, const uint8_t *bytes, size_t size) {
  size_t written;
  return size == 0 || BIO_write_ex(session->incoming, bytes, size, &written) == 1;
}

size_t ctls_drain(struct ctls_session *session, uint8_t *buffer, size_t capacity) {
  size_t count = 0;
  return BIO_read_ex(session->outgoing, buffer, capacity, &count) == 1 ? count : 0;
}

// RFC 7301 section 3.2: a server that knows ALPN says so with an alert, one that does not, not at all.
static const char no_protocol[] = "the server speaks no HTTP/2 (ALPN), and nothing else is asked";

static void explain(struct ctls_session *session) {
  long verified = SSL_get_verify_result(session->ssl);
  unsigned long error = ERR_get_error();
  const char *reason = error ? ERR_reason_error_string(error) : NULL;
  if (verified != X509_V_OK) reason = X509_verify_cert_error_string(verified);
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && ERR_GET_REASON(error) == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL) reason = no_protocol;
  session->reason = reason ? reason : "the connection was ended";
  ERR_clear_error();
}

enum ctls_progress ctls_handshake(struct ctls_session *session) {
  ERR_clear_error();
  int result = SSL_do_handshake(session->ssl);
  if (result != 1) {
    int why = SSL_get_error(session->ssl, result);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return CTLS_WAITING;
    explain(session);
    return CTLS_FAILED;
  }
  // SSL_VERIFY_PEER has ended the handshake otherwise.
  if (SSL_get_verify_result(session->ssl) != X509_V_OK) {
    explain(session);
    return CTLS_FAILED;
  }
  if (session->wants_protocol) {
    const uint8_t *chosen = NULL;
    unsigned length = 0;
    SSL_get0_alpn_selected(session->ssl, &chosen, &length);
    if (length == 0) {
      session->reason = no_protocol;
      return CTLS_FAILED;
    }
  }
  return CTLS_DONE;
}

long ctls_read(struct ctls_session *session, uint8_t *buffer, size_t capacity) {
  size_t count = 0;
  ERR_clear_error();
  int result = SSL_read_ex(session->ssl, buffer, capacity, &count);
  if (result == 1) return (long)count;
  switch (SSL_get_error(session->ssl, result)) {
  case SSL_ERROR_WANT_READ:
  case SSL_ERROR_WANT_WRITE: return 0;
  case SSL_ERROR_ZERO_RETURN: return -2;
  default: explain(session); return -1;
  }
}

bool ctls_write(struct ctls_session *session, const uint8_t *bytes, size_t size) {
  size_t written = 0;
  ERR_clear_error();
  // A memory BIO takes everything.
  if (size == 0 || SSL_write_ex(session->ssl, bytes, size, &written) == 1) return true;
  explain(session);
  return false;
}

const char *ctls_reason(const struct ctls_session *session) { return session->reason; }
