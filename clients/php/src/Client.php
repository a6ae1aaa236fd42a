<?php

declare(strict_types=1);

namespace SmallResource\Client;

use Psr\Log\LoggerInterface;
use Psr\Log\NullLogger;
use SmallResource\Client\Exception\RateLimited;
use SmallResource\Client\Exception\ResourceServerException;
use SmallResource\Client\Exception\ServerUnavailable;
use Symfony\Component\HttpClient\HttpClient;
use Symfony\Contracts\HttpClient\Exception\TransportExceptionInterface;
use Symfony\Contracts\HttpClient\HttpClientInterface;

/**
 * Sends requests to the server, again where that is safe and of use.
 *
 * Every request carries an X-Request-Id of its own, and an answer with another one is refused: with one
 * connection shared over a fork, a process can read the answer to somebody else's request. After a fork a new
 * HTTP client is made for the same reason.
 */
final class Client
{
    /** The server may hold a request for this long at most, so that a dead connection is noticed. */
    private const SLICE = 20.0;

    private readonly string $baseUri;
    private readonly LoggerInterface $logger;
    private readonly \Closure $newHttp;
    private readonly ?\Closure $observer;
    private readonly Retry $retry;
    private ?HttpClientInterface $http;
    private int $pid;
    private float $slice = self::SLICE;

    /** HTTP clients of the process that this one was forked from: closing them would end its connections. */
    private static array $inherited = [];

    /**
     * @param string                                $baseUri such as `http://localhost:9501`
     * @param float                                 $timeout seconds that one answer may take, besides the time a lock is waited for
     * @param float                                 $drift   share by which the clocks of client and server may run apart
     * @param (\Closure(): HttpClientInterface)|null $newHttp makes another HTTP client, needed after a fork
     * @param (callable(Request, ?Reply, float): void)|null $observer is told of each request, its answer and its seconds
     */
    public function __construct(
        string $baseUri,
        #[\SensitiveParameter] private readonly string $apiKey,
        ?HttpClientInterface $http = null,
        public readonly float $timeout = 10.0,
        ?Retry $retry = null,
        ?LoggerInterface $logger = null,
        public readonly float $drift = 0.01,
        ?\Closure $newHttp = null,
        ?callable $observer = null,
    ) {
        if (!preg_match('~^https?://[^/?#]+~i', $baseUri)) {
            throw new \InvalidArgumentException(sprintf('"%s" is not the address of a server: http:// or https:// and a host are needed.', $baseUri));
        }
        if ($timeout <= 0 || $drift < 0 || $drift >= 1) {
            throw new \InvalidArgumentException('The timeout is above 0 seconds, the drift from 0 to below 1.');
        }
        $this->baseUri = rtrim($baseUri, '/');
        $this->http = $http;
        $this->retry = $retry ?? new Retry();
        $this->logger = $logger ?? new NullLogger();
        $this->newHttp = $newHttp ?? self::httpClient(...);
        $this->observer = null === $observer ? null : $observer(...);
        $this->pid = getmypid();
    }

    /** Neither the key nor the HTTP client's headers end up in a dump. */
    public function __debugInfo(): array
    {
        return ['baseUri' => $this->baseUri, 'timeout' => $this->timeout];
    }

    public function __serialize(): array
    {
        throw new \BadMethodCallException('A client holds a key and is not serialised.');
    }

    /**
     * The answer to a request, whatever its status below 500; 429 and 5xx are retried.
     *
     * @param Deadline|null $until  when to give up; null: after the retries of `Retry`
     * @param Deadline|null $unsent when to give up while nothing could be sent; null: as `$until`
     *
     * @throws ServerUnavailable|RateLimited when there was no other answer in time; with the code `unreachable` nothing
     *                                       was sent
     */
    public function send(Request $request, ?Deadline $until = null, ?Deadline $unsent = null): Reply
    {
        $began = hrtime(true);
        $reply = null;
        try {
            return $reply = $this->sendUntil($request, $until, $unsent);
        } finally {
            $this->observer && ($this->observer)($request, $reply, (hrtime(true) - $began) / 1e9);
        }
    }

    private function sendUntil(Request $request, ?Deadline $until, ?Deadline $unsent): Reply
    {
        $sent = false;
        $failure = new ServerUnavailable('There was no time left to send the request.', 'no_time_left');
        for ($attempt = 1; 1 === $attempt || $attempt <= $this->retry->maxRetries + 1; ++$attempt) {
            $retryAfter = 0.0;
            try {
                $reply = $this->attempt($request, $attempt, $until);
                $sent = true;
                if ($reply->status < 500 && 429 !== $reply->status) {
                    if (!$this->tookShorterSlice($request, $reply)) {
                        return $reply;
                    }
                    continue;
                }
                $failure = ResourceServerException::fromReply($reply);
                $retryAfter = max(0.0, (float) $reply->header('Retry-After'));
            } catch (TransportExceptionInterface $e) {
                $sent = $sent || !$e instanceof NothingSent;
                // Without its previous exception: its options would bring key and ticket into a log.
                $failure = new ServerUnavailable(sprintf('No answer from %s: %s', $this->baseUri, $e->getMessage()), $sent ? 'no_answer' : 'unreachable');
            }
            $pause = $this->retry->pause($attempt, $retryAfter);
            if ($sent || null === $unsent) {
                $isOver = null !== $until && $until->remaining() <= $pause;
            } else {
                $isOver = $unsent->passed();
                // Once more at the end: the server may be back by then.
                $pause = min($pause, $unsent->remaining());
            }
            if ($isOver || $attempt > $this->retry->maxRetries) {
                break;
            }
            $this->logger->warning('{method} {path} failed and is sent again in {pause} s: {failure}', [
                'method' => $request->method, 'path' => $request->path, 'pause' => round($pause, 3), 'failure' => $failure->getMessage(),
            ]);
            usleep((int) ($pause * 1e6));
        }

        throw $failure;
    }

    /**
     * Who holds a lock, who waits for it; as the server says it.
     *
     * @throws ResourceServerException
     */
    public function describe(string $name, ?string $ticket = null): array
    {
        return $this->expect(new Request('GET', Request::path($name), ['queue' => 0], null, $ticket))->json();
    }

    /**
     * The resources whose names begin with a prefix, described, in the order of their names.
     *
     * @return iterable<array>
     *
     * @throws ResourceServerException
     */
    public function list(string $prefix = ''): iterable
    {
        $after = null;
        do {
            $query = array_filter(['prefix' => $prefix, 'after' => $after], static fn ($value) => null !== $value && '' !== $value);
            $page = $this->expect(new Request('GET', '/resource', $query))->json();
            yield from $page['resources'];
            $after = $page['next'];
        } while (null !== $after);
    }

    /**
     * The answer to a request that must succeed, retried for as long as one answer may take.
     *
     * @throws ResourceServerException
     */
    public function expect(Request $request, ?Deadline $until = null): Reply
    {
        $reply = $this->send($request, $until ?? Deadline::in($this->timeout));
        if ($reply->status >= 300) {
            throw ResourceServerException::fromReply($reply);
        }

        return $reply;
    }

    /**
     * What a renewing process needs to send requests itself. Holds the key.
     *
     * @internal
     */
    public function forRenewer(): array
    {
        return ['base' => $this->baseUri, 'key' => $this->apiKey, 'timeout' => $this->timeout, 'drift' => $this->drift];
    }

    /** @internal */
    public function logger(): LoggerInterface
    {
        return $this->logger;
    }

    /** Seconds to rest between two turns of a wait: none where the server itself holds the request. */
    public function restBetweenTurns(): float
    {
        return $this->slice > 0.0 ? 0.0 : 1.0;
    }

    /** Tells stores apart that lead to different servers. */
    public function address(): string
    {
        return $this->baseUri;
    }

    private function attempt(Request $request, int $attempt, ?Deadline $until): Reply
    {
        $id = bin2hex(random_bytes(12));
        $wait = match (true) {
            true === $request->wait => $this->slice,
            $request->wait instanceof Deadline => min($this->slice, $request->wait->remaining()),
            default => 0.0,
        };
        $query = $request->query;
        if ($request->wait) {
            $query['wait'] = Request::seconds($wait);
        }
        $patience = $this->timeout + $wait;
        if (null !== $until && !$request->wait) {
            $patience = max(0.1, min($patience, $until->remaining()));
        }
        $headers = ['Accept' => 'application/json', 'x-api-key' => $this->apiKey, 'X-Request-Id' => $id];
        if (null !== $request->body) {
            $headers['Content-Type'] = 'application/json';
        }
        if (null !== $request->ticket) {
            $headers['X-Ticket'] = $request->ticket;
        }
        if (null !== $request->idempotencyKey) {
            $headers['Idempotency-Key'] = $request->idempotencyKey;
        }
        $http = $this->http();
        $sentAt = Deadline::now();
        $response = $http->request($request->method, $this->baseUri.$request->path.($query ? '?'.http_build_query($query, '', '&', \PHP_QUERY_RFC3986) : ''), [
            'headers' => $headers,
            'body' => $request->body ?? '',
            'timeout' => $patience,
            'max_duration' => $patience,
            // The key goes to nobody else.
            'max_redirects' => 0,
            // As the process that renews the lock, which has no environment to learn of a proxy from.
            'no_proxy' => '*',
            'extra' => ['curl' => $request->once && \defined('CURLOPT_FRESH_CONNECT') ? [\CURLOPT_FRESH_CONNECT => true] : []],
        ]);
        try {
            $reply = new Reply($response->getStatusCode(), $response->getHeaders(false), $response->getContent(false), $sentAt, $attempt);
        } catch (TransportExceptionInterface $e) {
            // curl counts the bytes that it sent. Of other HTTP clients, and of one that tries again by itself, it is not known.
            throw 0 === $response->getInfo('request_size') && !$response->getInfo('retry_count') ? new NothingSent($e->getMessage()) : $e;
        }
        if (null !== $reply->header('X-Request-Id') && $reply->header('X-Request-Id') !== $id) {
            $this->http = null;

            throw new ForeignAnswer('the answer belongs to another request.');
        }

        return $reply;
    }

    /** Servers may take shorter waits only, and name the longest one when they refuse. */
    private function tookShorterSlice(Request $request, Reply $reply): bool
    {
        if (400 !== $reply->status || !$request->wait || !preg_match('/\bwait\b.*\bfrom 0 to (\d+(?:\.\d+)?)/', $reply->sentence(), $longest)) {
            return false;
        }
        if ((float) $longest[1] >= $this->slice) {
            return false;
        }
        $this->slice = (float) $longest[1];

        return true;
    }

    private function http(): HttpClientInterface
    {
        if (getmypid() !== $this->pid) {
            self::$inherited[] = $this->http;
            $this->http = null;
            $this->pid = getmypid();
        }

        return $this->http ??= ($this->newHttp)();
    }

    private static function httpClient(): HttpClientInterface
    {
        if (!class_exists(HttpClient::class)) {
            throw new \LogicException('Run "composer require symfony/http-client", or pass an HttpClientInterface and, where processes fork, a closure that makes a new one.');
        }

        return HttpClient::create();
    }
}
