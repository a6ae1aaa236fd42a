<?php

declare(strict_types=1);

namespace SmallResource\Client;

use SmallResource\Client\Exception\AlreadyExists;
use SmallResource\Client\Exception\ResourceServerException;
use SmallResource\Client\Renewal\GuardFactory;

/** Where locks come from. */
final class ResourceFactory
{
    /** @param bool $create names that do not exist are made while somebody holds or waits for them: no key with more rights than to lock is needed */
    public function __construct(
        private readonly Client $client,
        private readonly GuardFactory $guards = new GuardFactory(),
        private readonly bool $create = true,
    ) {
    }

    /**
     * The lock of a name. Sends nothing, unless a timeout is given: then the resource is created if it does not exist.
     *
     * @param int|null $timeout seconds that leases last which bring no ttl of their own; needs a key that may write
     *
     * @throws ResourceServerException
     */
    public function create(string $name, ?int $timeout = null): ResourceLock
    {
        if (null !== $timeout) {
            try {
                return $this->createResource($name, $timeout);
            } catch (AlreadyExists) {
                // It is not changed.
            }
        }

        return $this->getResource($name);
    }

    /**
     * Creates a resource, which stays until it is deleted; needs a key that may write.
     *
     * @param int $timeout seconds that leases last which bring no ttl of their own; 0: they do not expire
     *
     * @throws AlreadyExists           also when a lost answer was the first copy's, which created it
     * @throws ResourceServerException
     */
    public function createResource(string $name, int $timeout): ResourceLock
    {
        $this->client->expect(new Request('POST', '/resource', [], Request::json(['name' => $name, 'timeout' => $timeout]), once: true));

        return $this->getResource($name);
    }

    /** The lock of a name. Sends nothing. */
    public function getResource(string $name): ResourceLock
    {
        return new ResourceLock($this->client, $this->guards, $name, $this->create);
    }

    /** Several locks that are had together or not at all. Sends nothing. */
    public function createAll(string ...$names): ResourceLocks
    {
        return new ResourceLocks($this->client, $this->guards, $names, $this->create);
    }
}
