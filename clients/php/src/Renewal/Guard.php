<?php

declare(strict_types=1);

namespace SmallResource\Client\Renewal;

use SmallResource\Client\Client;
use SmallResource\Client\Deadline;
use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Exception\ResourceServerException;
use SmallResource\Client\Lease;

/**
 * Renews a lock while its owner works, and tells when it was lost. A guard of a lost lock stays lost.
 */
abstract class Guard
{
    protected bool $stopped = false;
    protected float $nextAt;
    protected readonly ?Deadline $until;

    public function __construct(
        protected readonly Client $client,
        protected readonly Lease $lease,
        protected readonly float $every,
        protected readonly float $ttl,
        ?float $maxLifetime,
    ) {
        if ($every <= 0 || $every >= $ttl) {
            throw new \InvalidArgumentException(sprintf('A lease of %s s that is renewed every %s s ends in between.', $ttl, $every));
        }
        if (null !== $maxLifetime && $maxLifetime <= 0) {
            throw new \InvalidArgumentException('A life is longer than no time.');
        }
        $this->until = null === $maxLifetime ? null : Deadline::in($maxLifetime);
        $now = Deadline::now();
        $left = $lease->deadline()?->remaining() ?? \INF;
        // The lease may be older, or shorter, than those that follow.
        $this->nextAt = $now + ($left < $every * 1.1 ? min($every, $left / 3) : $every);
    }

    public function __clone()
    {
        throw new \BadMethodCallException('A guard is not cloned.');
    }

    public function __serialize(): array
    {
        throw new \BadMethodCallException('A guard is not serialised.');
    }

    public function __destruct()
    {
        if ($this->lease->isOfThisProcess()) {
            $this->stop();
        }
    }

    /** Ends the renewal; the lock stays held until it is released or its lease is over. */
    public function stop(): void
    {
        if (!$this->stopped) {
            $this->report();
            $this->stopped = true;
            $this->end();
        }
    }

    /**
     * To be called before each step that only a holder may take.
     *
     * @throws LockLost with the server's reason
     */
    public function check(): void
    {
        $this->report();
        $this->lease->ensureHeld();
    }

    /**
     * The items one by one, each after a check that the lock is still held.
     *
     * @template K
     * @template V
     *
     * @param iterable<K, V> $items
     *
     * @return iterable<K, V>
     *
     * @throws LockLost
     */
    public function each(iterable $items): iterable
    {
        foreach ($items as $key => $item) {
            $this->check();
            yield $key => $item;
        }
        $this->check();
    }

    /**
     * Takes note of what became of the renewals since the last call.
     *
     * @internal
     */
    public function report(): void
    {
    }

    /** Ends what renews. */
    abstract protected function end(): void;

    /** Renews here and now if it is time to. */
    protected function renewIfDue(): void
    {
        if ($this->stopped || null !== $this->lease->lost() || !$this->lease->isOfThisProcess() || Deadline::now() < $this->nextAt) {
            return;
        }
        if ($this->until?->passed()) {
            return;
        }
        try {
            $this->lease->renew($this->client, $this->ttl);
            $this->nextAt = Deadline::now() + $this->every;
        } catch (LockLost) {
            // The lease remembers.
        } catch (ResourceServerException $e) {
            $this->nextAt = Deadline::now() + min($this->every, 1.0);
            $this->client->logger()->warning('The lock "{name}" could not be renewed: {failure}', ['name' => $this->lease->name, 'failure' => $e->getMessage()]);
        }
    }
}
