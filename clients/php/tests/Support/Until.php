<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests\Support;

/** Waits for conditions: what a machine needs for something is not known. */
final class Until
{
    /**
     * @template T
     *
     * @param \Closure(): T $condition
     *
     * @return T the first value that is true
     */
    public static function is(\Closure $condition, float $seconds, string $what): mixed
    {
        $end = hrtime(true) + $seconds * 1e9;
        do {
            if ($value = $condition()) {
                return $value;
            }
            usleep(10_000);
        } while (hrtime(true) < $end);

        throw new \RuntimeException(sprintf('Waited %s s in vain for %s.', $seconds, $what));
    }
}
