<?php

declare(strict_types=1);

namespace SmallResource\Client\Renewal;

/**
 * Renews when it is asked, in `check()` and `each()`: for loops of short steps, where no process can be started.
 * A step that takes longer than the lease lasts loses the lock.
 */
final class LoopGuard extends Guard
{
    public function check(): void
    {
        $this->renewIfDue();
        parent::check();
    }

    protected function end(): void
    {
    }
}
