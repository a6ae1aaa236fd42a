<?php

declare(strict_types=1);

namespace SmallResource\Client;

use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Exception\NotFound;
use SmallResource\Client\Exception\NotHeld;
use SmallResource\Client\Exception\ResourceServerException;
use SmallResource\Client\Renewal\Guard;
use SmallResource\Client\Renewal\GuardFactory;

/**
 * The lock of one name, and the documents that it protects.
 *
 * All times are seconds. The object knows that the lock is lost before anybody else can hold it.
 */
final class ResourceLock
{
    private ?Lease $lease = null;
    private ?Guard $guard = null;
    private float $waited = 0.0;

    /** @internal use ResourceFactory */
    public function __construct(
        private readonly Client $client,
        private readonly GuardFactory $guards,
        public readonly string $name,
        private readonly bool $create,
    ) {
    }

    public function __clone()
    {
        throw new \BadMethodCallException('A lock has one owner and is not cloned.');
    }

    public function __serialize(): array
    {
        throw new \BadMethodCallException('A lock is held by one process and is not serialised.');
    }

    public function __destruct()
    {
        if (!$this->lease?->isOfThisProcess()) {
            return;
        }
        try {
            $this->release();
        } catch (ResourceServerException $e) {
            $this->client->logger()->warning('The lock "{name}" could not be released and ends with its lease: {failure}', ['name' => $this->name, 'failure' => $e->getMessage()]);
        }
    }

    /**
     * Takes the lock. Held already by this object, its lease is renewed.
     *
     * @param string      $owner  shown to those who ask who holds the lock
     * @param float       $ttl    how long the lock is held after the death of this process; counted from the grant, not over the wait
     * @param float       $wait   how long to wait in line for it; INF: for ever
     * @param string|null $reason for people, shown with the owner
     * @param bool        $shared beside others who share it; nobody writes meanwhile
     *
     * @return bool whether it is held; false: somebody else holds it
     *
     * @throws ResourceServerException when that could not be learned within the wait and the client's timeout; within
     *                                 the wait alone when nothing could be sent
     */
    public function acquire(string $owner, float $ttl, float $wait = 0.0, ?string $reason = null, bool $shared = false): bool
    {
        return $this->acquireInTurns($owner, $ttl, $wait, $reason, $shared);
    }

    /**
     * @internal
     *
     * @param (\Closure(): void)|null $between is called in the wait, after each turn of so many seconds
     */
    public function acquireInTurns(string $owner, float $ttl, float $wait, ?string $reason, bool $shared, float $turn = \INF, ?\Closure $between = null): bool
    {
        if ($wait < 0) {
            throw new \InvalidArgumentException('Nobody waits for less than no time.');
        }
        if ($this->isHeld()) {
            try {
                $this->renew($ttl);
                $this->waited = 0.0;

                return true;
            } catch (LockLost) {
                // It is taken anew below; whoever guarded the old lease has been told of its loss.
            }
        }
        $this->forget();
        $acquisition = new Acquisition($this->client, $this->name, $owner, $ttl, $reason, $shared, $this->create);
        $this->lease = match (true) {
            0.0 === $wait => $acquisition->tryNow(),
            default => $acquisition->waitUntil(\INF === $wait ? null : Deadline::in($wait), $turn, $between),
        };
        $this->waited = $acquisition->waited();

        return null !== $this->lease;
    }

    /**
     * Puts off the end of the lease; it never comes earlier by that.
     *
     * @param float|null $ttl from now; null: as when it was taken
     *
     * @throws LockLost                when it is not held any more
     * @throws ResourceServerException when it could not be renewed; it is held until `remaining()` is over
     */
    public function renew(?float $ttl = null): void
    {
        if (null !== $ttl && $ttl <= 0) {
            throw new \InvalidArgumentException(sprintf('A lease of %s seconds is none.', $ttl));
        }
        $this->held()->renew($this->client, $ttl);
    }

    /**
     * Gives the lock back and ends its renewal. One that was lost, or never held, needs no giving back: no error.
     *
     * @return bool whether it was held until now
     *
     * @throws ResourceServerException when the server could not be told; the lease then ends by itself
     */
    public function release(): bool
    {
        $lease = $this->lease;
        $this->guard?->report();
        $this->forget();

        return $lease?->release($this->client) ?? false;
    }

    /**
     * Renews the lock in the background until the guard is stopped, the lock released or this process dead.
     *
     * @param float      $every       must leave time to try again before the lease ends: a third of the ttl is a good choice
     * @param float      $ttl         how long the lock is held after the death of this process
     * @param float|null $maxLifetime from now; renewal ends then, also when this process hangs. null: never
     */
    public function autoRenew(float $every, float $ttl, ?float $maxLifetime = null): Guard
    {
        $lease = $this->held();
        $this->guard?->stop();

        return $this->guard = $this->guards->create($this->client, $lease, $every, $ttl, $maxLifetime);
    }

    /** Whether the lock is certainly held now. Asks nobody. */
    public function isHeld(): bool
    {
        $this->guard?->report();

        return null !== $this->lease && null === $this->lease->lost();
    }

    /** For how long the lock is certainly held if it is not renewed; 0.0 when it is not held, null: without end. */
    public function remaining(): ?float
    {
        return $this->isHeld() ? $this->lease->deadline()?->remaining() : 0.0;
    }

    /** How long the last `acquire()` waited for somebody else; 0.0 when the lock was free. */
    public function waited(): float
    {
        return $this->waited;
    }

    /**
     * Grows with every grant of the name. Whatever the lock protects should refuse a lower one than it has seen.
     *
     * @throws LockLost|NotHeld
     */
    public function fencingToken(): int
    {
        return $this->held()->fencingToken;
    }

    /**
     * Who holds the lock, this object or somebody else. Asks the server.
     *
     * @throws ResourceServerException
     */
    public function holder(): ?Holder
    {
        try {
            return Holder::fromAnswer($this->client->describe($this->name)['holders'][0] ?? null);
        } catch (NotFound) {
            return null;
        }
    }

    /**
     * A document of this name, decoded; null when it was never written. Needs no lock.
     *
     * @throws ResourceServerException
     */
    public function read(string $selector): mixed
    {
        $request = new Request('GET', Request::path($this->name, $selector), ['lock' => 0, 'raw' => 1]);
        try {
            $reply = $this->client->expect($request);
        } catch (NotFound) {
            return null;
        }

        return json_decode($reply->body, true, 1024, \JSON_THROW_ON_ERROR | \JSON_BIGINT_AS_STRING);
    }

    /**
     * Writes a document. The server refuses it when the lock is not held any more.
     *
     * @param mixed $data   anything that is JSON
     * @param bool  $unlock gives the lock back in the same step
     *
     * @throws LockLost|NotHeld        and nothing is written
     * @throws ResourceServerException when it may or may not be written
     */
    public function write(string $selector, mixed $data, bool $unlock = false): void
    {
        $lease = $this->held();
        $body = json_encode($data, \JSON_THROW_ON_ERROR | \JSON_UNESCAPED_SLASHES | \JSON_UNESCAPED_UNICODE | \JSON_PRESERVE_ZERO_FRACTION, 1024);
        $request = new Request('PUT', Request::path($this->name, $selector), $unlock ? ['unlock' => 1] : [], $body, $lease->ticket, once: $unlock);
        if ($unlock) {
            $this->guard?->stop();
        }
        $reply = $this->client->send($request, Deadline::in($this->client->timeout));
        $repeated = $unlock && $reply->attempt > 1 && 'ticket_released' === $reply->code();
        if ($reply->status >= 300 && !$repeated) {
            throw 'not_exclusive' === $reply->code() ? ResourceServerException::fromReply($reply) : $lease->refused($reply);
        }
        if ($unlock) {
            $this->forget();
        }
    }

    private function held(): Lease
    {
        $this->guard?->report();
        if (null === $this->lease) {
            throw new NotHeld(sprintf('The lock "%s" is not held by this object.', $this->name), 'not_held');
        }
        $this->lease->ensureHeld();

        return $this->lease;
    }

    private function forget(): void
    {
        $this->guard?->stop();
        $this->guard = null;
        $this->lease = null;
    }
}
