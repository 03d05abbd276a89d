#include "CYaml.h"
#include <stdio.h>
#include <yaml.h>

int cyaml_parse(const char *text, size_t length, void *context,
                int (*body)(void *, enum cyaml_event, const char *, size_t, uint32_t), struct cyaml_error *error) {
  yaml_parser_t parser;
  error->line = 1;
  snprintf(error->problem, sizeof error->problem, "out of memory");
  if (!yaml_parser_initialize(&parser)) return -1;
  yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
  int result = 0;
  for (int more = 1; more;) {
    yaml_event_t event;
    if (!yaml_parser_parse(&parser, &event)) {
      if (parser.problem) snprintf(error->problem, sizeof error->problem, "%s", parser.problem);
      error->line = (uint32_t)parser.problem_mark.line + 1;
      result = -1;
      break;
    }
    uint32_t line = (uint32_t)event.start_mark.line + 1;
    switch (event.type) {
      case YAML_STREAM_END_EVENT: more = 0; break;
      case YAML_DOCUMENT_START_EVENT: more = body(context, CYAML_DOCUMENT, "", 0, line); break;
      case YAML_SCALAR_EVENT:
        more = body(context, event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? CYAML_SCALAR : CYAML_QUOTED,
                    (const char *)event.data.scalar.value, event.data.scalar.length, line);
        break;
      case YAML_SEQUENCE_START_EVENT: more = body(context, CYAML_SEQUENCE, "", 0, line); break;
      case YAML_MAPPING_START_EVENT: more = body(context, CYAML_MAPPING, "", 0, line); break;
      case YAML_SEQUENCE_END_EVENT:
      case YAML_MAPPING_END_EVENT: more = body(context, CYAML_END, "", 0, line); break;
      case YAML_ALIAS_EVENT: more = body(context, CYAML_ALIAS, "", 0, line); break;
      default: break;
    }
    yaml_event_delete(&event);
  }
  yaml_parser_delete(&parser);
  return result;
}
