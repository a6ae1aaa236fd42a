<?php

declare(strict_types=1);

namespace SmallResource\Client;

use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Exception\NotHeld;
use SmallResource\Client\Exception\ResourceServerException;
use SmallResource\Client\Renewal\GuardFactory;

/**
 * Several locks that are had together or not at all. They are taken in the order of their names' bytes, whoever
 * takes them, so that two who want the same ones cannot wait for each other; and released in reverse.
 */
final class ResourceLocks
{
    /** @var array<string, ResourceLock> in the order in which they are taken */
    private array $locks = [];

    /**
     * @internal use ResourceFactory
     *
     * @param list<string> $names
     */
    public function __construct(Client $client, GuardFactory $guards, array $names, bool $create)
    {
        $names = array_unique($names);
        sort($names, \SORT_STRING);
        foreach ($names as $name) {
            $this->locks[$name] = new ResourceLock($client, $guards, $name, $create);
        }
    }

    /**
     * @param float $ttl  of each lock; those that are held already are renewed while the next one is waited for
     * @param float $wait for all of them together; INF: for ever
     *
     * @return bool whether all are held; false: none is
     *
     * @throws ResourceServerException and none is held
     */
    public function acquire(string $owner, float $ttl, float $wait = 0.0, ?string $reason = null): bool
    {
        $until = \INF === $wait ? null : Deadline::in($wait);
        $all = false;
        try {
            foreach ($this->locks as $lock) {
                $meanwhile = $this->renewer($ttl);
                if (!$lock->acquireInTurns($owner, $ttl, 0.0 === $wait ? 0.0 : $until?->remaining() ?? \INF, $reason, false, $ttl / 3, $meanwhile)) {
                    return false;
                }
                $meanwhile();
            }

            return $all = true;
        } catch (LockLost) {
            // One was lost while another was waited for.
            return false;
        } finally {
            if (!$all) {
                $this->release();
            }
        }
    }

    /** @throws LockLost|ResourceServerException when one could not be renewed */
    public function renew(?float $ttl = null): void
    {
        foreach ($this->locks as $lock) {
            $lock->renew($ttl);
        }
    }

    /**
     * @return bool whether all were held until now
     *
     * @throws ResourceServerException the first one, after all were tried
     */
    public function release(): bool
    {
        $held = true;
        $failure = null;
        foreach (array_reverse($this->locks) as $lock) {
            try {
                $held = $lock->release() && $held;
            } catch (ResourceServerException $e) {
                $failure ??= $e;
            }
        }

        return null === $failure ? $held : throw $failure;
    }

    /** Whether all are certainly held now. Asks nobody. */
    public function isHeld(): bool
    {
        foreach ($this->locks as $lock) {
            if (!$lock->isHeld()) {
                return false;
            }
        }

        return true;
    }

    /** @throws NotHeld when the name is none of these */
    public function lock(string $name): ResourceLock
    {
        return $this->locks[$name] ?? throw new NotHeld(sprintf('The lock "%s" is none of these.', $name), 'not_held');
    }

    /** @return \Closure(): void renews what is held */
    private function renewer(float $ttl): \Closure
    {
        return function () use ($ttl): void {
            foreach ($this->locks as $lock) {
                if (($lock->remaining() ?? \INF) < $ttl * 2 / 3 && $lock->isHeld()) {
                    $lock->renew($ttl);
                }
            }
        };
    }
}
