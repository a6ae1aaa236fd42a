<?php

declare(strict_types=1);

namespace SmallResource\Client\Lock;

use SmallResource\Client\Acquisition;
use SmallResource\Client\Client;
use SmallResource\Client\Deadline;
use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Exception\NotFound;
use SmallResource\Client\Exception\ResourceServerException;
use SmallResource\Client\Lease;
use Symfony\Component\Lock\BlockingSharedLockStoreInterface;
use Symfony\Component\Lock\BlockingStoreInterface;
use Symfony\Component\Lock\Exception\InvalidTtlException;
use Symfony\Component\Lock\Exception\LockAcquiringException;
use Symfony\Component\Lock\Exception\LockConflictedException;
use Symfony\Component\Lock\Exception\LockExpiredException;
use Symfony\Component\Lock\Exception\LockReleasingException;
use Symfony\Component\Lock\Key;
use Symfony\Component\Lock\Lock;

/**
 * symfony/lock on small-resource-server.
 *
 * What a key needs to be used in another process (ticket, fencing token, deadline and the boot that the deadline
 * counts from) is in its state, so it can be serialised. Whether a lock is held is never decided by the wall
 * clock: `Lock::isAcquired()` is the truth, `Lock::isExpired()` is what Symfony's key says by the wall clock.
 */
final class ResourceServerStore implements BlockingStoreInterface, BlockingSharedLockStoreInterface
{
    /** What the server takes as a name; anything else goes by its SHA-256. */
    private const NAME = '/^[^\p{Cc}]{1,255}$/Du';

    /** @var \WeakMap<Key, int> the process in which a key got its lock */
    private \WeakMap $takenBy;

    /**
     * @param float      $initialTtl seconds that a lock is held for until `Lock` sets its own ttl, or for ever when that is null
     * @param string     $prefix     of the names on the server
     * @param float|null $maxWait    seconds that a blocking acquire waits at most; null: for ever
     * @param bool       $create     names that do not exist are made while somebody holds or waits for them
     */
    public function __construct(
        private readonly Client $client,
        private readonly float $initialTtl = 300.0,
        private readonly string $prefix = '',
        private readonly ?float $maxWait = null,
        private readonly bool $create = true,
    ) {
        if ($initialTtl <= 0) {
            throw new InvalidTtlException(sprintf('A lock of %s seconds is none.', $initialTtl));
        }
        $this->takenBy = new \WeakMap();
    }

    public function save(Key $key): void
    {
        $this->acquire($key, false, static fn (Acquisition $acquisition) => $acquisition->tryNow());
    }

    public function saveRead(Key $key): void
    {
        $this->acquire($key, true, static fn (Acquisition $acquisition) => $acquisition->tryNow());
    }

    public function waitAndSave(Key $key): void
    {
        $this->acquire($key, false, $this->wait(...));
    }

    public function waitAndSaveRead(Key $key): void
    {
        $this->acquire($key, true, $this->wait(...));
    }

    public function putOffExpiration(Key $key, float $ttl): void
    {
        if ($ttl <= 0) {
            throw new InvalidTtlException(sprintf('A lock of %s seconds is none.', $ttl));
        }
        $lease = $this->lease($key) ?? throw new LockConflictedException('The key holds no lock.');
        $wasHeld = null === $lease->lost();
        try {
            $lease->renew($this->client, $ttl, true);
        } catch (LockLost $lost) {
            if ($wasHeld && 'deadline_passed' === $lost->serverCode) {
                $this->expired($key, $lost);
            }
            $key->removeState($this->stateKey());

            throw new LockConflictedException($lost->getMessage(), 0, $lost);
        } catch (ResourceServerException $e) {
            throw new LockAcquiringException($e->getMessage(), 0, $e);
        }
        $this->remember($key, $lease);
        $this->ensureNotExpired($key);
    }

    public function exists(Key $key): bool
    {
        $lease = $this->lease($key);
        if (null === $lease || null !== $lease->lost() || $this->isDestroyedInAFork($key)) {
            return false;
        }
        try {
            return 'holder' === ($this->client->describe($lease->name, $lease->ticket)['you']['role'] ?? null);
        } catch (NotFound) {
            return false;
        }
    }

    public function delete(Key $key): void
    {
        $lease = $this->lease($key);
        if (null === $lease || $this->isDestroyedInAFork($key)) {
            return;
        }
        try {
            $lease->release($this->client);
        } catch (ResourceServerException $e) {
            throw new LockReleasingException($e->getMessage(), 0, $e);
        }
        $key->removeState($this->stateKey());
    }

    /**
     * Grows with every grant; what the lock protects should refuse a lower one than it has seen. Null when the key
     * holds no lock.
     */
    public function fencingToken(Key $key): ?int
    {
        return $this->lease($key)?->fencingToken;
    }

    /** The name of a key on the server. */
    public function name(Key $key): string
    {
        $name = $this->prefix.$key;

        return preg_match(self::NAME, $name) && !\in_array($name, ['.', '..'], true) ? $name : $this->prefix.hash('sha256', (string) $key);
    }

    /** @param \Closure(Acquisition): ?Lease $ask */
    private function acquire(Key $key, bool $shared, \Closure $ask): void
    {
        $held = $this->lease($key);
        if (null !== $held && null !== $held->lost()) {
            $key->removeState($this->stateKey());
            $held = null;
        }
        $acquisition = new Acquisition($this->client, $this->name($key), gethostname().':'.getmypid(), $this->initialTtl, null, $shared, $this->create, $held);
        try {
            $lease = $ask($acquisition);
        } catch (LockLost $lost) {
            $key->removeState($this->stateKey());

            throw new LockConflictedException($lost->getMessage(), 0, $lost);
        } catch (ResourceServerException $e) {
            throw new LockAcquiringException($e->getMessage(), 0, $e);
        }
        if (null === $lease) {
            $holder = $acquisition->holder();

            throw new LockConflictedException(null === $holder ? 'Somebody else holds the lock.' : sprintf('"%s" holds the lock since %s.', $holder->owner, $holder->acquiredAt));
        }
        $this->takenBy[$key] = getmypid();
        $this->remember($key, $lease);
        $this->ensureNotExpired($key);
    }

    private function wait(Acquisition $acquisition): ?Lease
    {
        return $acquisition->waitUntil(null === $this->maxWait ? null : Deadline::in($this->maxWait));
    }

    private function remember(Key $key, Lease $lease): void
    {
        $key->setState($this->stateKey(), [
            'ticket' => $lease->ticket,
            'fencingToken' => $lease->fencingToken,
            'deadline' => $lease->deadline()?->instant(),
            'boot_id' => Deadline::bootId(),
        ]);
        if (null !== $lease->deadline()) {
            $key->reduceLifetime($lease->deadline()->remaining());
        }
    }

    private function lease(Key $key): ?Lease
    {
        if (!$key->hasState($this->stateKey())) {
            return null;
        }
        $state = $key->getState($this->stateKey());
        // On another machine, or after a restart of this one, only the server knows.
        $deadline = null === $state['deadline'] || $state['boot_id'] !== Deadline::bootId() ? null : Deadline::at($state['deadline']);

        return new Lease($this->name($key), $state['ticket'], $state['fencingToken'], $deadline);
    }

    private function ensureNotExpired(Key $key): void
    {
        if ($key->isExpired()) {
            $this->expired($key);
        }
    }

    private function expired(Key $key, ?LockLost $lost = null): never
    {
        try {
            $this->delete($key);
        } catch (LockReleasingException) {
            // It is over in any case.
        }

        throw new LockExpiredException(sprintf('The lock "%s" expired before it could be used.', $key), 0, $lost);
    }

    /** Stores that lead to different servers can be combined: each has a ticket of its own in the key. */
    private function stateKey(): string
    {
        return self::class.'|'.$this->client->address().'|'.$this->prefix;
    }

    /**
     * A fork has a copy of its parent's locks, which Symfony releases when the copy is destroyed. The parent still
     * holds them.
     */
    private function isDestroyedInAFork(Key $key): bool
    {
        if (($this->takenBy[$key] ?? getmypid()) === getmypid()) {
            return false;
        }
        foreach (debug_backtrace(\DEBUG_BACKTRACE_IGNORE_ARGS, 8) as $frame) {
            if (Lock::class === ($frame['class'] ?? null) && '__destruct' === $frame['function']) {
                return true;
            }
        }

        return false;
    }
}
