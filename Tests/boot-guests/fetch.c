// fetch NAME PORT PATH: resolves NAME with the C library's own resolver and prints what HTTP gives for PATH. Built with
// musl for the Alpine-like root, where busybox is static and would prove nothing of the C library.
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  if (argc != 4) return 2;
  int code = getaddrinfo(argv[1], argv[2], &hints, &found);
  if (code != 0) return fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(code)), 3;
  int server = socket(found->ai_family, SOCK_STREAM, 0);
  if (server < 0 || connect(server, found->ai_addr, found->ai_addrlen) < 0) return perror("connect"), 4;
  dprintf(server, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", argv[3], argv[1]);
  FILE *answer = fdopen(server, "r");
  char line[4096];
  // A refused connection is a reset one, which shows with the first read.
  if (!fgets(line, sizeof line, answer)) return perror("read"), 5;
  while (fgets(line, sizeof line, answer) && strcmp(line, "\r\n") != 0) {}
  while (fgets(line, sizeof line, answer)) fputs(line, stdout);
  return 0;
}
