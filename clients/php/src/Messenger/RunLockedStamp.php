<?php

declare(strict_types=1);

namespace SmallResource\Client\Messenger;

use Symfony\Component\Messenger\Stamp\StampInterface;

/** The message is handled while the lock is held, so that one of its name is handled at a time. */
final class RunLockedStamp implements StampInterface
{
    /**
     * @param string     $name        of the lock
     * @param float      $ttl         seconds that the lock is held after the death of its worker; it is renewed while the handler runs
     * @param float      $wait        seconds that the worker waits for the lock before it puts the message back
     * @param float|null $maxLifetime seconds after which it is renewed no more; null: never
     */
    public function __construct(
        public readonly string $name,
        public readonly float $ttl = 30.0,
        public readonly float $wait = 0.0,
        public readonly ?float $maxLifetime = null,
    ) {
    }
}
