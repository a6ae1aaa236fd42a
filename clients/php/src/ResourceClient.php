<?php

declare(strict_types=1);

namespace SmallResource\Client;

use SmallResource\Client\Exception\NotHeld;
use SmallResource\Client\Exception\ResourceServerException;

/** Locks by name, for code that does not pass a lock around. Holds what it acquired until it is released. */
final class ResourceClient
{
    /** @var array<string, ResourceLock> */
    private array $locks = [];

    public function __construct(private readonly ResourceFactory $resources)
    {
    }

    /**
     * See ResourceLock::acquire().
     *
     * @throws ResourceServerException
     */
    public function acquire(string $name, string $owner, float $ttl, float $wait = 0.0): bool
    {
        $lock = $this->locks[$name] ??= $this->resources->getResource($name);
        $acquired = false;
        try {
            return $acquired = $lock->acquire($owner, $ttl, $wait);
        } finally {
            if (!$acquired) {
                unset($this->locks[$name]);
            }
        }
    }

    /**
     * See ResourceLock::renew().
     *
     * @throws ResourceServerException
     */
    public function renew(string $name, ?float $ttl = null): void
    {
        $this->lock($name)->renew($ttl);
    }

    /**
     * See ResourceLock::release().
     *
     * @throws ResourceServerException
     */
    public function release(string $name): bool
    {
        $lock = $this->locks[$name] ?? null;
        unset($this->locks[$name]);

        return $lock?->release() ?? false;
    }

    public function isHeld(string $name): bool
    {
        return ($this->locks[$name] ?? null)?->isHeld() ?? false;
    }

    /** @throws NotHeld when it was not acquired here */
    public function lock(string $name): ResourceLock
    {
        return $this->locks[$name] ?? throw new NotHeld(sprintf('The lock "%s" was not acquired here.', $name), 'not_held');
    }
}
