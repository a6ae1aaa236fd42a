<?php

declare(strict_types=1);

namespace SmallResource\Client;

/**
 * A point on a clock that no one sets and that goes on while the machine is suspended.
 *
 * The wall clock never decides whether a lease is over: it may be stepped while the lease lives.
 */
final class Deadline
{
    private function __construct(private readonly float $at)
    {
    }

    /**
     * Seconds since the machine started, suspension included; the same for all processes of the machine.
     *
     * hrtime() stands still while the machine is suspended, /proc/uptime does not. The latter is coarse
     * (10 ms, rounded down), so it counts only when it is ahead. Without /proc, suspension is not counted.
     */
    public static function now(): float
    {
        $running = hrtime(true) / 1e9;
        $uptime = @file_get_contents('/proc/uptime', false, null, 0, 32);

        return false === $uptime ? $running : max($running, (float) $uptime);
    }

    /** Names the boot that `now()` counts from; null where the system does not tell. */
    public static function bootId(): ?string
    {
        static $id;
        $id ??= @file_get_contents('/proc/sys/kernel/random/boot_id', false, null, 0, 36);

        return false === $id ? null : $id;
    }

    public static function at(float $instant): self
    {
        return new self($instant);
    }

    public static function in(float $seconds): self
    {
        return new self(self::now() + $seconds);
    }

    /**
     * When a lease may end at the earliest.
     *
     * @param float $sentAt when the request was sent, by `now()`
     * @param float $waited seconds from its arrival to the grant, as the server told
     * @param float $ttl    seconds that the lease lasts from the grant
     * @param float $drift  share by which the clocks of client and server may run apart
     */
    public static function ofLease(float $sentAt, float $waited, float $ttl, float $drift): self
    {
        return new self($sentAt + ($waited + $ttl) * (1 - $drift));
    }

    public static function earlier(?self $one, ?self $other): ?self
    {
        if (null === $one || null === $other) {
            return $one ?? $other;
        }

        return $one->at <= $other->at ? $one : $other;
    }

    public function instant(): float
    {
        return $this->at;
    }

    /** Seconds that are left, 0.0 once it has passed. */
    public function remaining(): float
    {
        return max(0.0, $this->at - self::now());
    }

    public function passed(): bool
    {
        return self::now() >= $this->at;
    }
}
