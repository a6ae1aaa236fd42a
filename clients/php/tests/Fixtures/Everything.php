<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests\Fixtures;

use SmallResource\Client\Client;
use SmallResource\Client\Lock\ResourceServerStore;
use SmallResource\Client\ResourceClient;
use SmallResource\Client\ResourceFactory;
use Symfony\Component\Lock\LockFactory;
use Symfony\Contracts\HttpClient\HttpClientInterface;

/** Asks for all that can be autowired. */
final class Everything
{
    public function __construct(
        public readonly Client $client,
        public readonly ResourceFactory $resources,
        public readonly ResourceClient $locks,
        public readonly ResourceServerStore $store,
        public readonly LockFactory $resourceServerLockFactory,
        public readonly LockFactory $lockFactory,
        public readonly HttpClientInterface $smallResourceClient,
    ) {
    }
}
