// Load generator for a mutual-TLS HTTP server on loopback: a closed loop of connections on one thread, epoll and OpenSSL.
//
// Build: cc -O2 -Wall -o loadgen loadgen.c -lssl -lcrypto -lm    (Debian: gcc, libssl-dev)
//
// Each connection sends one request, waits for the whole answer, and sends the next. With -n every request has a
// connection and a full handshake of its own; its latency then counts from the connect call. With -b the bodies of POST
// requests are the lines of a file, each used once over all connections; the run ends when they are used up. With -o the
// body of every 200 answer is written to a file, a line each, so that what one run fetched can feed the next. With -r so
// many requests a second are sent at random moments (Poisson), whatever the server does: each goes out on a connection
// that is free, and its latency counts from the moment at which it was due.
// "begin" and "end" are printed as lines of their own where the measured time starts and stops, then one JSON object.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_LIMIT = 1 << 17, HEAD_LIMIT = 4096, BODY_LIMIT = 1 << 16, LATENCIES_LIMIT = 1 << 23, ERRORS_LIMIT = 500 };
enum phase { CONNECTING, SHAKING_HANDS, SENDING, READING, IDLE };

struct connection {
    int fd;
    SSL *tls;
    enum phase phase;
    char *request;
    int request_length;
    char *answer;
    int filled;
    int wanted; /* length of the whole answer once its head is read, else 0 */
    int head_length;
    int is_200;
    double started;
    int parked; /* waits for its next request to be due */
};

static struct {
    int port, connections, new_connection;
    double warmup_s, measured_s, rate;
    const char *path, *certificate, *key, *authority, *bodies, *answers;
} options = {.connections = 32, .warmup_s = 0.5, .measured_s = 3, .path = "/"};

static SSL_CTX *context;
static int poll_fd;
static struct sockaddr_in server;
static FILE *bodies, *answers;
static struct connection **parked;
static int parked_count;
static double next_due;
static float *latencies_us;
static long latency_count, requests, errors, non_200, handshakes, resumed;
static int stopping, measuring, exhausted;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double own_cpu_s(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

static void die(const char *what) {
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(2);
}

static void open_connection(struct connection *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->started = now();
    c->phase = CONNECTING;
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) die("connect");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
    c->tls = SSL_new(context);
    SSL_set_fd(c->tls, c->fd);
    SSL_set_tlsext_host_name(c->tls, "localhost");
    SSL_set_connect_state(c->tls);
}

/* A reset instead of a goodbye: thousands of connections a second must not leave their ports in TIME_WAIT. */
static void close_connection(struct connection *c) {
    struct linger reset = {1, 0};
    SSL_set_quiet_shutdown(c->tls, 1);
    SSL_free(c->tls);
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(c->fd);
}

static void fail(struct connection *c, const char *what) {
    if (stopping) return;
    if (++errors <= 3) {
        fprintf(stderr, "loadgen: %s\n", what);
        ERR_print_errors_fp(stderr);
    }
    ERR_clear_error();
    if (errors > ERRORS_LIMIT) stopping = 1;
    close_connection(c);
    open_connection(c);
}

static int next_request(struct connection *c) {
    if (!options.bodies) {
        if (!c->request_length)
            c->request_length =
                snprintf(c->request, HEAD_LIMIT, "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
                                                 "User-Agent: loadgen\r\n\r\n", options.path);
        return 1;
    }
    static char body[BODY_LIMIT];
    if (exhausted || !fgets(body, sizeof body, bodies)) {
        exhausted = 1;
        return 0;
    }
    size_t length = strcspn(body, "\r\n");
    int head = snprintf(c->request, HEAD_LIMIT, "POST %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
                        "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n", options.path, length);
    memcpy(c->request + head, body, length);
    c->request_length = head + (int)length;
    return 1;
}

/* 1: goes on, 0: wait for the socket, -1: broken. */
static int tls_result(struct connection *c, int result) {
    if (result > 0) return 1;
    int error = SSL_get_error(c->tls, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

static void read_head(struct connection *c) {
    char *end = memmem(c->answer, c->filled, "\r\n\r\n", 4);
    if (!end) return;
    c->head_length = (int)(end - c->answer) + 4;
    *end = 0;
    char *length = strcasestr(c->answer, "content-length:");
    c->wanted = c->head_length + (length ? atoi(length + 15) : 0);
    c->is_200 = strncmp(c->answer + 9, "200", 3) == 0;
}

static void answered(struct connection *c) {
    double t = now();
    requests++;
    if (!c->is_200 && ++non_200 <= 3)
        fprintf(stderr, "loadgen: %.60s | %.*s\n", c->answer, c->wanted - c->head_length, c->answer + c->head_length);
    if (answers && c->is_200) {
        fwrite(c->answer + c->head_length, 1, c->wanted - c->head_length, answers);
        fputc('\n', answers);
    }
    if (measuring && latency_count < LATENCIES_LIMIT) latencies_us[latency_count++] = (t - c->started) * 1e6;
}

static void advance(struct connection *c) {
    int result;
    for (;;) switch (c->phase) {
        case CONNECTING: {
            int error = 0;
            socklen_t size = sizeof error;
            getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
            if (error) {
                fail(c, strerror(error));
                return;
            }
            c->phase = SHAKING_HANDS;
        } /* fall through */
        case SHAKING_HANDS:
            result = tls_result(c, SSL_do_handshake(c->tls));
            if (result == 0) return;
            if (result < 0) {
                fail(c, "handshake failed");
                return;
            }
            handshakes++;
            resumed += SSL_session_reused(c->tls);
            c->phase = IDLE; /* fall through */
        case IDLE:
            if (options.rate) {
                if (!c->parked) {
                    c->parked = 1;
                    parked[parked_count++] = c;
                }
                return;
            }
            if (stopping || !next_request(c)) return;
            if (!options.new_connection) c->started = now();
            c->phase = SENDING; /* fall through */
        case SENDING:
            result = tls_result(c, SSL_write(c->tls, c->request, c->request_length));
            if (result == 0) return;
            if (result < 0) {
                fail(c, "write failed");
                return;
            }
            c->filled = c->wanted = 0;
            c->phase = READING; /* fall through */
        case READING: {
            int got = SSL_read(c->tls, c->answer + c->filled, ANSWER_LIMIT - c->filled);
            result = tls_result(c, got);
            if (result == 0) return;
            if (result < 0) {
                fail(c, "read failed");
                return;
            }
            c->filled += got;
            if (!c->wanted) read_head(c);
            if (!c->wanted || c->filled < c->wanted) break;
            answered(c);
            c->phase = IDLE;
            if (options.new_connection) {
                close_connection(c);
                open_connection(c);
                return;
            }
        }
    }
}

/* Sends what is due, as far as connections are free. */
static void send_due(void) {
    while (parked_count && next_due <= now() && !stopping) {
        struct connection *c = parked[--parked_count];
        if (!next_request(c)) return;
        c->parked = 0;
        c->started = next_due;
        c->phase = SENDING;
        next_due -= log(1 - drand48()) / options.rate;
        advance(c);
    }
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    return latency_count ? latencies_us[(long)(share * (latency_count - 1))] : 0;
}

static void announce(const char *what) {
    puts(what);
    fflush(stdout);
}

static void read_options(int count, char **words) {
    int option;
    while ((option = getopt(count, words, "p:c:d:w:u:C:K:A:b:o:nr:")) != -1) switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 'd': options.measured_s = atof(optarg); break;
        case 'w': options.warmup_s = atof(optarg); break;
        case 'u': options.path = optarg; break;
        case 'C': options.certificate = optarg; break;
        case 'K': options.key = optarg; break;
        case 'A': options.authority = optarg; break;
        case 'b': options.bodies = optarg; break;
        case 'o': options.answers = optarg; break;
        case 'n': options.new_connection = 1; break;
        case 'r': options.rate = atof(optarg); break;
        default: exit(2);
    }
    if (!options.port || !options.certificate || !options.key || !options.authority || options.connections < 1) {
        fprintf(stderr, "use: loadgen -p PORT -u PATH -C client.crt -K client.key -A ca.crt [-c CONNECTIONS]\n"
                        "             [-w WARMUP_S] [-d MEASURED_S] [-n | -r RATE] [-b BODIES_FILE] [-o ANSWERS_FILE]\n");
        exit(2);
    }
}

int main(int count, char **words) {
    read_options(count, words);
    if (options.bodies && !(bodies = fopen(options.bodies, "r"))) die(options.bodies);
    if (options.answers && !(answers = fopen(options.answers, "w"))) die(options.answers);
    parked = calloc(options.connections, sizeof *parked);
    latencies_us = malloc(sizeof *latencies_us * LATENCIES_LIMIT);
    poll_fd = epoll_create1(0);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, 0);
    SSL_CTX_set_read_ahead(context, 1); /* one read a record: the client must not be what is measured */
    if (SSL_CTX_load_verify_locations(context, options.authority, 0) != 1 ||
        SSL_CTX_use_certificate_chain_file(context, options.certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, options.key, SSL_FILETYPE_PEM) != 1)
        die("certificates");

    struct connection *all = calloc(options.connections, sizeof *all);
    for (int i = 0; i < options.connections; i++) {
        all[i].request = malloc(HEAD_LIMIT + BODY_LIMIT);
        all[i].answer = malloc(ANSWER_LIMIT);
        open_connection(&all[i]);
    }
    next_due = now();
    double begin = next_due + options.warmup_s, end = begin + options.measured_s, begun = 0, cpu_s = 0;
    long before = 0;
    struct epoll_event events[256];
    while (!stopping && !exhausted) {
        /* Paced, it never sleeps: a millisecond is too coarse. */
        int ready = epoll_wait(poll_fd, events, 256, options.rate ? 0 : 20);
        for (int i = 0; i < ready; i++) advance(events[i].data.ptr);
        if (options.rate) send_due();
        double t = now();
        if (!measuring && t >= begin) {
            measuring = 1;
            announce("begin");
            before = requests;
            begun = now();
            cpu_s = own_cpu_s();
        }
        if (t >= end) break;
    }
    stopping = 1;
    double seconds = now() - begun;
    cpu_s = own_cpu_s() - cpu_s;
    announce("end");
    if (answers) fclose(answers);
    qsort(latencies_us, latency_count, sizeof *latencies_us, ascending);
    printf("{\"requests\":%ld,\"seconds\":%.4f,\"rate\":%.1f,\"errors\":%ld,\"non_200\":%ld,\"handshakes\":%ld,"
           "\"resumed\":%ld,\"p50_us\":%.0f,\"p99_us\":%.0f,\"p999_us\":%.0f,\"client_cpu_s\":%.4f,\"exhausted\":%d}\n",
           requests - before, seconds, (requests - before) / seconds, errors, non_200, handshakes, resumed,
           percentile(.5), percentile(.99), percentile(.999), cpu_s, exhausted);
    return 0;
}
