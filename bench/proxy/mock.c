/*
 * A provider that costs nothing: one thread, epoll, answers that were made beforehand. It tallies what it bills.
 *
 *   mock PORT
 *
 * POST with a JSON body: a plain chat completion, or with "stream":true a stream of events, each its own chunk:
 *   PACE=<microseconds>; in the body: that long between two events (else all at once)
 *   EVENTS=<n>; in the body: so many (else 50)
 * GET /tally: {"answers", "prompt_tokens", "completion_tokens"} of all that was answered since the start. An answer is
 * tallied when its last byte was written; a stream whose client goes, as its usage frame was not sent, is not.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FD = 32768, IN_BYTES = 65536, PROMPT_TOKENS = 230, PLAIN_TOKENS = 20, EVENTS = 50, PACES = 8 };

static char plain[2048], *burst, *head, *event, *tail;
static size_t plain_len, burst_len, head_len, event_len, tail_len;
static uint64_t answers, prompt_tokens, completion_tokens;

struct connection {
    int fd;                              /* -1: closed, but still in a line */
    char *in;
    size_t have, body_at, body_len;      /* body_at: 0 until the head is whole */
    const char *out;
    size_t left;
    int events, pace, bills;             /* events: of a paced stream, still to be sent; bills: once `out` is written */
    uint64_t due;                        /* 0: in no line */
    struct connection *next;
    char text[192];
};
static struct connection *of[MAX_FD];
static struct { int pace; struct connection *first, *last; } lines[PACES]; /* of one pace each, so always in order */
static int poll_fd, timer_fd;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static char *chunk(char *to, const char *data) {
    return to + sprintf(to, "%zx\r\n%s\r\n", strlen(data), data);
}

static void bake(void) {
    static char text[512], body[1024];
    const char *says = "It depends on what you mean by a budget: a limit that is checked before the money is spent, or one "
                       "that is noticed afterwards. Only the first is one.";
    sprintf(body, "{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1790000000,"
        "\"model\":\"gpt-4o-2024-08-06\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\","
        "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":%d,"
        "\"completion_tokens\":%d,\"total_tokens\":%d,\"prompt_tokens_details\":{\"cached_tokens\":0},"
        "\"completion_tokens_details\":{\"reasoning_tokens\":0}},\"system_fingerprint\":\"fp_bench\"}",
        says, PROMPT_TOKENS, PLAIN_TOKENS, PROMPT_TOKENS + PLAIN_TOKENS);
    plain_len = sprintf(plain, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n"
        "openai-processing-ms: 12\r\ncontent-length: %zu\r\n\r\n%s", strlen(body), body);

    const char *frame = "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
        "\"model\":\"gpt-4o-2024-08-06\",\"system_fingerprint\":\"fp_bench\",\"choices\":[{\"index\":0,\"delta\":{%s},"
        "\"logprobs\":null,\"finish_reason\":%s}],\"usage\":null}\n\n";
    head = malloc(4096), event = malloc(4096), tail = malloc(4096), burst = malloc(65536);
    char *end = head + sprintf(head, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        "x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n");
    sprintf(text, frame, "\"role\":\"assistant\",\"content\":\"\"", "null");
    end = chunk(end, text), head_len = end - head;
    sprintf(text, frame, "\"content\":\" budget\"", "null");
    event_len = chunk(event, text) - event;
    sprintf(text, frame, "", "\"stop\"");
    end = chunk(tail, text);
    sprintf(text, "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
        "\"model\":\"gpt-4o-2024-08-06\",\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,"
        "\"total_tokens\":%d}}\n\n", PROMPT_TOKENS, EVENTS, PROMPT_TOKENS + EVENTS);
    end = chunk(end, text), end = chunk(end, "data: [DONE]\n\n");
    end += sprintf(end, "0\r\n\r\n"), tail_len = end - tail;
    memcpy(burst, head, head_len), burst_len = head_len;
    for (int i = 0; i < EVENTS; i++) memcpy(burst + burst_len, event, event_len), burst_len += event_len;
    memcpy(burst + burst_len, tail, tail_len), burst_len += tail_len;
}

static void forget(struct connection *c) {
    close(c->fd);
    of[c->fd] = NULL;
    if (c->due) { c->fd = -1; return; }  /* still in a line, which frees it */
    free(c->in), free(c);
}

static int flush(struct connection *c) {
    while (c->left) {
        ssize_t n = send(c->fd, c->out, c->left, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN) return -1;
            struct epoll_event e = { .events = EPOLLIN | EPOLLOUT, .data.fd = c->fd };
            epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &e);
            return 0;
        }
        c->out += n, c->left -= n;
    }
    if (c->bills) answers++, prompt_tokens += PROMPT_TOKENS, completion_tokens += c->bills, c->bills = 0;
    return 0;
}

/* The same pace, the same line: whoever comes last is due last. */
static void put_in_line(struct connection *c) {
    int i = 0;
    while (i < PACES - 1 && lines[i].pace && lines[i].pace != c->pace) i++;
    lines[i].pace = c->pace;
    c->due = now_us() + c->pace, c->next = NULL;
    if (lines[i].last) lines[i].last->next = c;
    else lines[i].first = c;
    lines[i].last = c;
}

static void serve_due(void) {
    uint64_t now = now_us(), soonest = 0;
    for (int i = 0; i < PACES; i++) {
        struct connection *c;
        while ((c = lines[i].first) && c->due <= now) {
            if (!(lines[i].first = c->next)) lines[i].last = NULL;
            c->due = 0;
            if (c->fd < 0) { free(c->in), free(c); continue; }
            if (c->left) { put_in_line(c); continue; } /* its reader is behind */
            if (c->events) c->events--, c->out = event, c->left = event_len;
            else c->out = tail, c->left = tail_len, c->bills = EVENTS, c->pace = 0;
            if (flush(c) < 0) forget(c);
            else if (c->pace) put_in_line(c);
        }
        if (c && (!soonest || c->due < soonest)) soonest = c->due;
    }
    struct itimerspec at = { .it_value = { soonest / 1000000, soonest % 1000000 * 1000 } };
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static int number(const char *body, size_t length, const char *name, int otherwise) {
    const char *found = memmem(body, length, name, strlen(name));
    return found ? atoi(found + strlen(name)) : otherwise;
}

static void answer(struct connection *c) {
    const char *body = c->in + c->body_at;
    if (!memcmp(c->in, "GET", 3)) {
        char said[128];
        int length = sprintf(said, "{\"answers\":%lu,\"prompt_tokens\":%lu,\"completion_tokens\":%lu}", answers,
            prompt_tokens, completion_tokens);
        c->left = sprintf(c->text, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", length, said), c->out = c->text;
        return;
    }
    if (!memmem(body, c->body_len, "\"stream\":true", 13)) {
        c->out = plain, c->left = plain_len, c->bills = PLAIN_TOKENS;
        return;
    }
    c->pace = number(body, c->body_len, "PACE=", 0);
    c->events = number(body, c->body_len, "EVENTS=", EVENTS);
    if (!c->pace) c->out = burst, c->left = burst_len, c->bills = EVENTS;
    else c->out = head, c->left = head_len, put_in_line(c);
}

/* -1: the connection is to be closed. */
static int receive(struct connection *c) {
    for (;;) {
        ssize_t n = recv(c->fd, c->in + c->have, IN_BYTES - 1 - c->have, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) return -1;
        if (n < 0) return 0;
        c->have += n, c->in[c->have] = 0;
        if (!c->body_at) {
            char *end = strstr(c->in, "\r\n\r\n");
            if (!end) continue;
            c->body_at = end + 4 - c->in, *end = 0;
            char *length = strcasestr(c->in, "\r\ncontent-length:");
            c->body_len = length ? strtoul(length + 17, NULL, 10) : 0;
            if (c->body_at + c->body_len > IN_BYTES - 1) return -1;
        }
        if (c->have < c->body_at + c->body_len) continue;
        answer(c);
        c->have = c->body_at = 0;
        if (flush(c) < 0) return -1;
    }
}

static void take(int listening) {
    int fd, yes = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FD) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct connection *c = of[fd] = calloc(1, sizeof *c);
        c->fd = fd, c->in = malloc(IN_BYTES);
        struct epoll_event e = { .events = EPOLLIN, .data.fd = fd };
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: mock PORT\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    bake();
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    if (bind(listening, (void *)&here, sizeof here) || listen(listening, 4096)) return perror("mock"), 1;
    poll_fd = epoll_create1(0), timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event e = { .events = EPOLLIN, .data.fd = listening }, ready[256];
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listening, &e);
    e.data.fd = timer_fd, epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer_fd, &e);
    for (;;) {
        int n = epoll_wait(poll_fd, ready, 256, -1), rings = 0;
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listening) take(listening);
            else if (fd == timer_fd) continue;
            else if (of[fd]) {
                struct connection *c = of[fd];
                if (ready[i].events & EPOLLOUT) {
                    e.events = EPOLLIN, e.data.fd = fd, epoll_ctl(poll_fd, EPOLL_CTL_MOD, fd, &e);
                    if (flush(c) < 0) { forget(c); continue; }
                }
                if (ready[i].events & ~EPOLLOUT && receive(c) < 0) forget(c);
            }
        }
        for (int i = 0; i < PACES; i++) rings |= lines[i].first != NULL;
        if (rings) serve_due();
    }
}
