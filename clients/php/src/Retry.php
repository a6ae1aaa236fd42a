<?php

declare(strict_types=1);

namespace SmallResource\Client;

/**
 * How long to wait before a request is sent again, in seconds.
 *
 * Full jitter: a random part of a delay that grows, so that clients which failed together do not come back
 * together. What the server asks for in Retry-After is waited in addition.
 */
final class Retry
{
    /**
     * @param int   $maxRetries for one request; a wait for a lock is a new request every 20 seconds
     * @param float $jitter     the random share of a delay: 1.0 draws from 0 to the delay, 0.0 takes all of it
     */
    public function __construct(
        public readonly int $maxRetries = 30,
        public readonly float $delay = 0.1,
        public readonly float $multiplier = 2.0,
        public readonly float $maxDelay = 5.0,
        public readonly float $jitter = 1.0,
    ) {
        if ($maxRetries < 0 || $delay < 0 || $multiplier < 1 || $maxDelay < 0 || $jitter < 0 || $jitter > 1) {
            throw new \InvalidArgumentException('Retries take no negative number, a multiplier of at least 1 and a jitter from 0 to 1.');
        }
    }

    /** @param int $retry 1 for the first one */
    public function pause(int $retry, float $retryAfter): float
    {
        $delay = min($this->maxDelay, $this->delay * $this->multiplier ** ($retry - 1));

        return $retryAfter + $delay * (1 - $this->jitter * mt_rand() / mt_getrandmax());
    }
}
