<?php

declare(strict_types=1);

namespace SmallResource\Client\Renewal;

/**
 * Tells a process from a later one with the same number. Loaded without autoloading by bin/renew.php, too.
 *
 * @internal
 */
final class ProcessLife
{
    /** When the process was started, in ticks since the boot; '' when it is dead, null where the system does not tell. */
    public static function startOf(int $pid): ?string
    {
        if (!@is_readable('/proc/self/stat')) {
            return null;
        }
        $stat = @file_get_contents('/proc/'.$pid.'/stat');
        if (false === $stat) {
            return '';
        }
        // The name, in parentheses, may hold anything.
        $fields = explode(' ', substr($stat, (int) strrpos($stat, ')') + 2));

        // A zombie has ended; nobody has waited for it yet.
        return \in_array($fields[0], ['Z', 'X', 'x'], true) ? '' : $fields[19];
    }
}
