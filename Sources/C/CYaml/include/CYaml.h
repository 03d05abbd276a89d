// libyaml (github.com/yaml/libyaml, libyaml-dev) as far as a list of settings needs it: a document's events, in order.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum cyaml_event {
  CYAML_DOCUMENT,
  CYAML_SCALAR,
  CYAML_QUOTED, // a scalar in quotes, which is a string whatever it looks like
  CYAML_SEQUENCE,
  CYAML_MAPPING,
  CYAML_END, // of a sequence or a mapping
  CYAML_ALIAS,
};

struct cyaml_error {
  char problem[256];
  uint32_t line; // from 1
};

// Calls `body` for each event of `text`, which must be UTF-8, until it returns 0; `line` is from 1.
// -1 for what is not YAML, with the reason, else 0.
int cyaml_parse(const char *text, size_t length, void *context,
                int (*body)(void *context, enum cyaml_event event, const char *text, size_t length, uint32_t line),
                struct cyaml_error *error);
