// toml++ (github.com/marzer/tomlplusplus, libtomlplusplus-dev) as far as a configuration needs it: a document is parsed
// whole, then walked. Nothing here throws.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef struct ctoml_document ctoml_document;
typedef struct ctoml_node ctoml_node;

enum ctoml_kind {
  CTOML_TABLE, CTOML_ARRAY, CTOML_STRING, CTOML_INTEGER, CTOML_BOOLEAN, CTOML_FLOAT, CTOML_TIME
};

struct ctoml_error {
  char problem[256];
  uint32_t line; // from 1
};

// NULL for what is not TOML 1.0, with the reason; `text` must be UTF-8 and may hold NULs.
ctoml_document *ctoml_parse(const char *text, size_t length, struct ctoml_error *error);
void ctoml_free(ctoml_document *document);
const ctoml_node *ctoml_root(const ctoml_document *document);

enum ctoml_kind ctoml_kind_of(const ctoml_node *node);
int64_t ctoml_integer(const ctoml_node *node);
bool ctoml_boolean(const ctoml_node *node);
const char *ctoml_string(const ctoml_node *node, size_t *length); // not terminated

// Calls `body` for each entry of a table or element of an array, whose key is NULL; `line` and `column` are the key's or
// the element's, from 1, or 0 where nothing in the text stands for it.
void ctoml_each(const ctoml_node *node, void *context,
                void (*body)(void *context, const char *key, size_t length, uint32_t line, uint32_t column,
                             const ctoml_node *value));

#ifdef __cplusplus
}
#endif
