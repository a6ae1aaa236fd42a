<?php

declare(strict_types=1);

namespace SmallResource\Client;

use SmallResource\Client\Exception\ResourceServerException;
use SmallResource\Client\Exception\ServerUnavailable;

/**
 * One attempt to get a lock: retried with the same Idempotency-Key until it is known how it went, and left
 * properly when it is given up, whatever has become of the answers.
 *
 * @internal
 */
final class Acquisition
{
    /**
     * Leaving may take this long: a server that is away would otherwise keep the caller for much longer than it wanted
     * to wait. A place that could not be left is passed over soon, and a lock ends with its ttl.
     */
    private const LEAVING = 2.0;

    private string $idempotencyKey;
    private ?string $ticket;
    private ?Holder $holder = null;
    private bool $sent = false;
    private ?float $startedAt = null;
    private float $waited = 0.0;

    /**
     * @param float|null $ttl    seconds; null: the resource's timeout
     * @param bool       $create a name that does not exist is made for as long as somebody holds or waits
     * @param Lease|null $held   a lease of the same name whose mode is to be changed
     */
    public function __construct(
        private readonly Client $client,
        private readonly string $name,
        private readonly string $owner,
        private readonly ?float $ttl,
        private readonly ?string $reason = null,
        private readonly bool $shared = false,
        private readonly bool $create = true,
        private readonly ?Lease $held = null,
    ) {
        if (null !== $ttl && $ttl <= 0) {
            throw new \InvalidArgumentException(sprintf('A lease of %s seconds is none.', $ttl));
        }
        $this->startOver();
    }

    /** The lock if it is to be had now; leaves no place in the queue. */
    public function tryNow(): ?Lease
    {
        $until = Deadline::in($this->client->timeout);

        return $this->orLeave(fn () => $this->ask(['queue' => 0], null, $until) ?? $this->ask(['queue' => 0], null, $until, true), 'queue');
    }

    /**
     * The lock as soon as it is to be had; null: not within the time.
     *
     * @param (\Closure(): void)|null $between is called in the wait, after each turn of so many seconds
     */
    public function waitUntil(?Deadline $deadline, float $turn = \INF, ?\Closure $between = null): ?Lease
    {
        // How it ended may be asked for after the wait.
        $until = null === $deadline ? null : Deadline::in($deadline->remaining() + $this->client->timeout);

        return $this->orLeave(function () use ($deadline, $until, $turn, $between) {
            while (true) {
                $wait = \INF === $turn ? $deadline : Deadline::earlier(Deadline::in($turn), $deadline);
                $lease = $this->ask([], $wait ?? true, $until, unsent: $deadline);
                if (null !== $lease || $deadline?->passed()) {
                    return $lease;
                }
                $between && $between();
                usleep((int) (min($this->client->restBetweenTurns(), $deadline?->remaining() ?? \INF) * 1e6));
            }
        }, 'wait');
    }

    /** Who held the lock when it was refused. */
    public function holder(): ?Holder
    {
        return $this->holder;
    }

    /** Seconds from the first request until the grant; 0.0 when the lock was free. */
    public function waited(): float
    {
        return $this->waited;
    }

    /**
     * Gives up the place, and the lock in case it was granted meanwhile. Where no answer ever came, the same
     * request without a wait tells which ticket there is to give up.
     */
    public function leave(string $impatient = 'wait'): void
    {
        if (!$this->sent || null !== $this->held) {
            return;
        }
        $until = Deadline::in(min(self::LEAVING, $this->client->timeout));
        try {
            if (null === $this->ticket) {
                $reply = $this->client->send($this->request([$impatient => 0], null), $until);
                $this->ticket = 200 === $reply->status ? ($reply->json()['ticket'] ?? null) : null;
            }
            if (null !== $this->ticket) {
                $this->client->send(new Request('PUT', Lease::path($this->name, 'unlock'), [], null, $this->ticket), $until);
            }
        } catch (ResourceServerException $e) {
            $this->client->logger()->warning('Could not leave the queue of "{name}": {failure}', ['name' => $this->name, 'failure' => $e->getMessage()]);
        }
        $this->startOver();
    }

    /** @param \Closure(): ?Lease $acquire */
    private function orLeave(\Closure $acquire, string $impatient): ?Lease
    {
        $lease = null;
        $refused = false;
        try {
            $lease = $acquire();
            $refused = 'queue' === $impatient;
        } finally {
            // Also when a signal handler or a time limit of the application threw.
            if (null === $lease && !$refused) {
                $this->leave($impatient);
            }
        }

        return $lease;
    }

    /** @param Deadline|null $unsent when to give up if nothing of this attempt ever reached a server */
    private function ask(array $query, Deadline|bool|null $wait, ?Deadline $until, bool $onlyAfterEnd = false, ?Deadline $unsent = null): ?Lease
    {
        if ($onlyAfterEnd && $this->sent) {
            return null;
        }
        $this->startedAt ??= Deadline::now();
        $before = $this->sent;
        // First, as a signal handler of the application may throw in the middle of the request.
        $this->sent = true;
        try {
            $reply = $this->client->send($this->request($query, $wait), $until, $before ? null : $unsent);
        } catch (ServerUnavailable $e) {
            // With nothing sent there is nothing to leave.
            $this->sent = $before || 'unreachable' !== $e->serverCode;

            throw $e;
        }
        if (200 === $reply->status) {
            return $this->answered($reply);
        }
        if (409 === $reply->status && 'locked' === $reply->code()) {
            $this->holder = Holder::fromAnswer($reply->json()['holder'] ?? null);

            return null;
        }
        if (403 === $reply->status && null === $this->held) {
            // Our place or our lease ended while we did not hear of it: this attempt is over, another may begin.
            $this->startOver();

            return null;
        }

        throw $this->held?->refused($reply) ?? ResourceServerException::fromReply($reply);
    }

    private function answered(Reply $reply): ?Lease
    {
        $answer = $reply->json();
        $this->ticket = $answer['ticket'] ?? $reply->header('X-Ticket');
        if (true !== ($answer['locked'] ?? null)) {
            return null;
        }
        $waitedMs = $answer['waitedMs'] ?? 0;
        $this->waited = $reply->sentAt - $this->startedAt + $waitedMs / 1000;

        return new Lease($this->name, $this->ticket, $answer['fencingToken'], Lease::deadlineOf($reply, $this->client->drift, $this->ttl));
    }

    private function request(array $query, Deadline|bool|null $wait): Request
    {
        $body = ['owner' => $this->owner];
        if (null !== $this->ttl) {
            $body['ttl'] = Request::seconds($this->ttl);
        }
        if (null !== $this->reason) {
            $body['reason'] = $this->reason;
        }
        if ($this->shared) {
            $body['mode'] = 'shared';
        } elseif (null !== $this->held) {
            $body['mode'] = 'exclusive';
        }
        if ($this->create) {
            $query['create'] = 1;
        }

        return new Request('PUT', Lease::path($this->name, 'lock'), $query, Request::json($body), $this->ticket, $this->idempotencyKey, $wait);
    }

    private function startOver(): void
    {
        $this->idempotencyKey = bin2hex(random_bytes(16));
        $this->ticket = $this->held?->ticket;
        $this->sent = false;
    }
}
