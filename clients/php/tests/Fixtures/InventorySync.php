<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests\Fixtures;

use SmallResource\Client\ResourceFactory;

/** The lines of the article, as printed, in a service. */
final class InventorySync
{
    public function __construct(private readonly ResourceFactory $resources)
    {
    }

    public function run(callable $work): bool
    {
        $lock = $this->resources->create('shop:42:inventory');
        if ($lock->acquire('sync-worker', 30)) {
            $guard = $lock->autoRenew(every: 20, ttl: 30);
            try {
                $work($guard);

                return true;
            } finally {
                $guard->stop();
                $lock->release();
            }
        }

        return false;
    }
}
