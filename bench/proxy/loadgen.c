/*
 * Many clients on one thread: sends one request over and over, reads every answer whole and checks it.
 *
 *   loadgen PORT CONNECTIONS SECONDS COUNT RATE STATUS REQUEST_FILE
 *
 * At most COUNT requests (0: no bound) within SECONDS; what is in flight then is read to its end. RATE 0: each
 * connection asks again as soon as it was answered; else so many requests a second are due in all, and a latency counts
 * from when its request was due. An answer is good if it has STATUS and is whole; a stream's last event must be [DONE].
 * Prints one line of JSON; times in microseconds.
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 16384, BUFFER = 262144, PATIENCE_US = 60000000 };
enum { HEAD, LENGTH, SIZE_LINE, DATA, LAST_LINES, IDLE };

struct client {
    int fd, state, status, streamed;
    char head[HEAD_BYTES], last[16];     /* last: the end of the body so far */
    size_t head_len, left, sent, line;   /* left: of the body or chunk; sent: of the request */
    uint64_t due, first;
};

static char *request, buffer[BUFFER], complaint[512];
static size_t request_len;
static int port, poll_fd, wanted, in_flight;
static uint64_t begun, asked, good, bad, reconnects, counted, room;
static uint32_t *latency, *first_byte;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void connect_it(struct client *c) {
    int yes = 1;
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    for (int tries = 0; connect(c->fd, (void *)&to, sizeof to); tries++) {
        if (tries > 50) { perror("loadgen: connect"); exit(1); }
        usleep(20000);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    c->state = IDLE;
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = c };
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &e);
}

static void again(struct client *c) {
    close(c->fd), reconnects++;
    connect_it(c);
}

static void ask(struct client *c, uint64_t due) {
    c->state = HEAD, c->head_len = 0, c->status = c->streamed = 0, c->due = due, c->first = 0;
    memset(c->last, 0, sizeof c->last);
    asked++, in_flight++;
    for (c->sent = 0; c->sent < request_len;) {
        ssize_t n = send(c->fd, request + c->sent, request_len - c->sent, MSG_NOSIGNAL);
        if (n < 0) break; /* seen when it is read from */
        c->sent += n;
    }
}

static void done(struct client *c, int whole) {
    uint64_t now = now_us();
    c->state = IDLE, in_flight--;
    if (whole && c->status == wanted && (!c->streamed || !memcmp(c->last + 2, "data: [DONE]\n\n", 14))) {
        if (counted == room) {
            room = room ? room * 2 : 65536;
            latency = realloc(latency, room * 4), first_byte = realloc(first_byte, room * 4);
        }
        latency[counted] = now - c->due, first_byte[counted++] = c->first - c->due, good++;
        return;
    }
    if (!bad++) {
        c->head[c->head_len < HEAD_BYTES ? c->head_len : HEAD_BYTES - 1] = 0;
        snprintf(complaint, sizeof complaint, "%s %d %.200s", whole ? "answered" : "cut after", c->status, c->head);
        for (char *p = complaint; *p; p++) if (*p == '"' || *p == '\\' || *p < ' ') *p = ' ';
    }
}

static void body_head(struct client *c) {
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->streamed = strcasestr(c->head, "text/event-stream") != NULL;
    if (strcasestr(c->head, "\r\ntransfer-encoding:")) c->state = SIZE_LINE, c->line = 0, c->left = 0;
    else c->state = LENGTH, c->left = length ? strtoul(length + 17, NULL, 10) : 0;
}

static void remember(struct client *c, const char *data, size_t n) {
    if (n >= 16) memcpy(c->last, data + n - 16, 16);
    else memmove(c->last, c->last + n, 16 - n), memcpy(c->last + 16 - n, data, n);
}

/* The bytes of one answer; whatever follows it is an error. 1: the answer is whole. */
static int feed(struct client *c, const char *p, size_t n) {
    if (c->state == HEAD) {
        size_t take = n < HEAD_BYTES - 1 - c->head_len ? n : HEAD_BYTES - 1 - c->head_len, before = c->head_len;
        memcpy(c->head + before, p, take), c->head[before + take] = 0;
        char *end = strstr(c->head + (before > 3 ? before - 3 : 0), "\r\n\r\n");
        if (!end) { c->head_len += take; return 0; }
        size_t used = end + 4 - c->head - before;
        c->head_len = end + 2 - c->head, c->head[c->head_len] = 0;
        p += used, n -= used;
        body_head(c);
    }
    while (n) {
        size_t take = 1;
        switch (c->state) {
        case LENGTH:
        case DATA:
            take = n < c->left ? n : c->left;
            remember(c, p, take), c->left -= take;
            if (c->state == LENGTH && !c->left) return 1;
            if (!c->left) c->state = SIZE_LINE, c->line = 0; /* the CRLF behind the data reads as an empty line */
            break;
        case SIZE_LINE:
            if (*p == '\n') {
                if (!c->line) break;
                c->state = c->left ? DATA : LAST_LINES, c->line = 0;
            } else if (*p != '\r') {
                if (!c->line++) c->left = 0;
                c->left = c->left * 16 + (*p <= '9' ? *p - '0' : (*p | 32) - 'a' + 10);
            }
            break;
        case LAST_LINES:
            if (*p == '\n' && !c->line) return 1;
            c->line = *p == '\n' ? 0 : c->line + (*p != '\r');
            break;
        }
        p += take, n -= take;
    }
    return c->state == LENGTH && !c->left;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t at(const uint32_t *sorted, double part) {
    return counted ? sorted[(uint64_t)(part * (counted - 1))] : 0;
}

int main(int argc, char **argv) {
    if (argc != 8) return fprintf(stderr, "usage: loadgen PORT CONNECTIONS SECONDS COUNT RATE STATUS REQUEST_FILE\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    port = atoi(argv[1]), wanted = atoi(argv[6]);
    int n_clients = atoi(argv[2]);
    uint64_t most = strtoull(argv[4], NULL, 10), length_us = strtod(argv[3], NULL) * 1e6;
    double rate = strtod(argv[5], NULL);
    FILE *file = fopen(argv[7], "rb");
    if (!file) return perror(argv[7]), 1;
    request = malloc(1 << 20), request_len = fread(request, 1, 1 << 20, file);
    poll_fd = epoll_create1(0);
    struct client *clients = calloc(n_clients, sizeof *clients);
    for (int i = 0; i < n_clients; i++) connect_it(&clients[i]);
    struct epoll_event ready[256];
    uint64_t last = 0, until;
    int cursor = 0;
    begun = last = now_us(), until = begun + length_us;
    for (;;) {
        uint64_t now = now_us(), next = 0;
        int open = now < until && (!most || asked < most);
        if (!open && !in_flight) break;
        if (now > until + PATIENCE_US) { bad += in_flight; strcpy(complaint, "never answered"); break; }
        /* Closed loop: whoever is idle asks. By rate: as many as are due, whoever is idle. */
        for (int tried = 0; open && tried < n_clients && in_flight < n_clients; tried++) {
            struct client *c = &clients[cursor = (cursor + 1) % n_clients];
            if (c->state != IDLE) continue;
            uint64_t due = rate ? begun + (uint64_t)(asked * 1e6 / rate) : now;
            if (due > now) { next = due; break; }
            if (most && asked >= most) break;
            ask(c, due);
        }
        int wait = next ? (int)((next - now) / 1000) : 100;
        int n = epoll_wait(poll_fd, ready, 256, wait);
        for (int i = 0; i < n; i++) {
            struct client *c = ready[i].data.ptr;
            ssize_t got = recv(c->fd, buffer, BUFFER, MSG_DONTWAIT);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) {
                if (c->state != IDLE) done(c, 0);
                again(c);
                continue;
            }
            if (c->state == IDLE) { bad++, again(c); continue; }
            if (!c->first) c->first = now_us();
            if (feed(c, buffer, got)) {
                done(c, 1), last = now_us();
                if (strcasestr(c->head, "\r\nconnection: close")) again(c);
            }
        }
    }
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    qsort(latency, counted, 4, compare), qsort(first_byte, counted, 4, compare);
    printf("{\"good\":%lu,\"bad\":%lu,\"reconnects\":%lu,\"seconds\":%.6f,\"p50\":%u,\"p99\":%u,\"max\":%u,\"first_p50\":%u,"
        "\"first_p99\":%u,\"cpu_us\":%ld,\"complaint\":\"%s\"}\n", good, bad, reconnects, (last - begun) / 1e6,
        at(latency, .5), at(latency, .99), at(latency, 1), at(first_byte, .5), at(first_byte, .99),
        (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000L + used.ru_utime.tv_usec + used.ru_stime.tv_usec, complaint);
    return 0;
}
