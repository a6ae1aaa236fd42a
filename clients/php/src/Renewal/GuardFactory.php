<?php

declare(strict_types=1);

namespace SmallResource\Client\Renewal;

use Revolt\EventLoop;
use SmallResource\Client\Client;
use SmallResource\Client\Lease;

/** Chooses how a lock is renewed. */
final class GuardFactory
{
    public const AUTO = 'auto';
    public const PROCESS = 'process';
    public const LOOP = 'loop';
    public const REVOLT = 'revolt';
    public const KINDS = [self::AUTO, self::PROCESS, self::LOOP, self::REVOLT];

    /** @param string $kind `auto`: the event loop where one runs, else a process beside this one */
    public function __construct(private readonly string $kind = self::AUTO)
    {
        if (!\in_array($kind, self::KINDS, true)) {
            throw new \InvalidArgumentException(sprintf('Locks are renewed by one of %s, not by "%s".', implode(', ', self::KINDS), $kind));
        }
    }

    /** @internal use ResourceLock::autoRenew() */
    public function create(Client $client, Lease $lease, float $every, float $ttl, ?float $maxLifetime): Guard
    {
        $class = match ($this->kind) {
            self::PROCESS => ProcessGuard::class,
            self::LOOP => LoopGuard::class,
            self::REVOLT => RevoltGuard::class,
            self::AUTO => self::loopRuns() ? RevoltGuard::class : ProcessGuard::class,
        };

        return new $class($client, $lease, $every, $ttl, $maxLifetime);
    }

    private static function loopRuns(): bool
    {
        // Not autoloaded: a loop that runs is loaded.
        return class_exists(EventLoop::class, false) && EventLoop::getDriver()->isRunning();
    }
}
