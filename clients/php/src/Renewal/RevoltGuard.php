<?php

declare(strict_types=1);

namespace SmallResource\Client\Renewal;

use Revolt\EventLoop;
use SmallResource\Client\Client;
use SmallResource\Client\Lease;

/**
 * Renews from a timer of the event loop: for applications that live in one. Whatever blocks the loop for longer
 * than the lease lasts loses the lock.
 */
final class RevoltGuard extends Guard
{
    private readonly string $timer;

    public function __construct(Client $client, Lease $lease, float $every, float $ttl, ?float $maxLifetime)
    {
        parent::__construct($client, $lease, $every, $ttl, $maxLifetime);
        // The loop holds this object no longer than the application does.
        $guard = \WeakReference::create($this);
        $this->timer = EventLoop::unreference(EventLoop::repeat(min(1.0, $every / 4), static function (string $timer) use ($guard): void {
            null === $guard->get() ? EventLoop::cancel($timer) : $guard->get()->renewIfDue();
        }));
    }

    protected function end(): void
    {
        EventLoop::cancel($this->timer);
    }
}
