<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use PHPUnit\Framework\Attributes\DataProvider;
use SmallResource\Client\Exception\AlreadyExists;
use SmallResource\Client\Exception\KeyRefused;
use SmallResource\Client\Exception\LockLost;
use SmallResource\Client\Exception\NotHeld;
use SmallResource\Client\Request;
use SmallResource\Client\ResourceClient;
use SmallResource\Client\Tests\Support\LockTestCase;
use SmallResource\Client\Tests\Support\Server;

final class ResourceLockTest extends LockTestCase
{
    public function testOneHolderAtATime(): void
    {
        $name = $this->existingName();
        $mine = $this->resources()->create($name);
        $theirs = $this->resources()->create($name);

        self::assertFalse($mine->isHeld());
        self::assertTrue($mine->acquire('me', 30));
        self::assertFalse($theirs->acquire('them', 30));
        self::assertSame('me', $this->server->owner($name));
        self::assertTrue($mine->isHeld());
        self::assertFalse($theirs->isHeld());
        self::assertSame('me', $theirs->holder()->owner);
        self::assertSame('exclusive', $theirs->holder()->mode);

        self::assertTrue($mine->release());
        self::assertFalse($mine->isHeld());
        self::assertTrue($theirs->acquire('them', 30));
        self::assertSame('them', $this->server->owner($name));
    }

    public function testAKeyThatMayLockIsEnoughForANameThatDoesNotExist(): void
    {
        $name = $this->unknownName();
        $lock = $this->resources(key: Server::LOCK)->create($name);

        self::assertTrue($lock->acquire('me', 30));
        self::assertTrue($this->server->isTaken($name));
        self::assertTrue($lock->release());
        self::assertSame(404, $this->server->asked('GET', '/resource/'.rawurlencode($name))['status']);
    }

    public function testAcquiringAgainRenews(): void
    {
        $lock = $this->resources()->create($this->existingName());
        $lock->acquire('me', 5);
        $token = $lock->fencingToken();

        self::assertTrue($lock->acquire('me', 60));
        self::assertSame($token, $lock->fencingToken());
        self::assertGreaterThan(50, $lock->remaining());
    }

    public function testTheNextGrantHasAHigherToken(): void
    {
        $lock = $this->resources()->create($this->existingName());
        $lock->acquire('me', 5);
        $token = $lock->fencingToken();
        $lock->release();
        $lock->acquire('me', 5);

        self::assertGreaterThan($token, $lock->fencingToken());
    }

    public function testWhoWaitsGetsTheLockAndItsWholeTtl(): void
    {
        $name = $this->existingName();
        $holder = $this->resources()->create($name);
        $holder->acquire('first', 1.5);
        $lock = $this->resources()->create($name);

        self::assertTrue($lock->acquire('second', 5, wait: 30));
        self::assertGreaterThan(0.2, $lock->waited());
        self::assertLessThanOrEqual(5.0, $lock->remaining());
        self::assertGreaterThan(3.0, $lock->remaining());
        self::assertFalse($holder->isHeld());
        self::assertSame('second', $this->server->owner($name));
    }

    public function testWhoDidNotWaitSaysSo(): void
    {
        $lock = $this->resources()->create($this->existingName());
        $lock->acquire('me', 30, wait: 5);

        self::assertLessThan(2.0, $lock->waited());
    }

    public function testAWaitThatIsOverLeavesNoPlaceBehind(): void
    {
        $name = $this->existingName();
        $holder = $this->resources()->create($name);
        $holder->acquire('first', 30);

        self::assertFalse($this->resources()->create($name)->acquire('second', 30, wait: 0.3));
        self::assertSame(0, $this->server->asked('GET', '/resource/'.rawurlencode($name))['waiting']);
    }

    public function testALeaseEndsByItsTtlAndIsKnownToBeOverBefore(): void
    {
        $name = $this->existingName();
        $lock = $this->resources()->create($name);
        $lock->acquire('me', 0.8);
        self::assertTrue($lock->isHeld());
        $overlap = false;
        $end = microtime(true) + 30;
        do {
            $taken = $this->server->isTaken($name);
            // Asked after the server answered: what it says now was so before.
            $overlap = $overlap || (!$taken && $lock->isHeld());
        } while ($taken && microtime(true) < $end);

        self::assertFalse($taken, 'the lease ends');
        self::assertFalse($overlap, 'the lock was free while its former holder thought to hold it');
        self::assertFalse($lock->isHeld());
        self::assertSame(0.0, $lock->remaining());
        $this->expectException(LockLost::class);
        $lock->fencingToken();
    }

    public function testALockThatWasForcedOffSaysByWhomAndWhy(): void
    {
        $name = $this->existingName();
        $lock = $this->resources()->create($name);
        $lock->acquire('me', 30);
        $this->server->forceOff($name, 'it hangs');

        try {
            $lock->renew();
            self::fail('a lost lock was renewed');
        } catch (LockLost $lost) {
            self::assertSame('lease_forced_off', $lost->serverCode);
            self::assertSame(403, $lost->status);
            self::assertSame('it hangs', $lost->forcedReason());
            self::assertSame('admin', $lost->forcedBy());
        }
        self::assertFalse($lock->isHeld());
        self::assertFalse($lock->release(), 'what was lost needs no giving back');
    }

    public function testDocumentsAreWrittenByTheHolderOnly(): void
    {
        $name = $this->existingName();
        $lock = $this->resources()->create($name, 60);
        self::assertNull($lock->read('stock'));
        try {
            $lock->write('stock', 1);
            self::fail('written without the lock');
        } catch (NotHeld) {
        }
        $lock->acquire('me', 30);
        foreach ([['apples' => 5, 'price' => 1.0], [], 'text', 0, false, ['ö/"' => null]] as $document) {
            $lock->write('stock', $document);
            self::assertSame($document, $this->resources()->create($name)->read('stock'));
        }
        $this->server->forceOff($name);
        try {
            $lock->write('stock', 'too late');
            self::fail('written without the lock');
        } catch (LockLost $lost) {
            self::assertSame('lease_forced_off', $lost->serverCode);
        }
        self::assertSame(['ö/"' => null], $lock->read('stock'));
    }

    public function testWritingMayReleaseInOneStep(): void
    {
        $name = $this->existingName();
        $lock = $this->resources()->create($name, 60);
        $lock->acquire('me', 30);
        $lock->write('stock', [1], unlock: true);

        self::assertFalse($lock->isHeld());
        self::assertFalse($this->server->isTaken($name));
        self::assertSame([1], $lock->read('stock'));
    }

    /** @dataProvider namesThatNeedCare */
    #[DataProvider('namesThatNeedCare')]
    public function testNamesArriveAsTheyAre(string $name): void
    {
        $this->server->create($name);
        $lock = $this->resources()->getResource($name);

        self::assertTrue($lock->acquire('me', 30));
        $lock->write('a/b ü%2F', 1);
        self::assertSame(1, $lock->read('a/b ü%2F'));
        $names = array_column($this->server->asked('GET', '/resource?limit=1000')['resources'], 'locked', 'name');
        self::assertTrue($names[$name]);
        self::assertTrue($lock->release());
    }

    public static function namesThatNeedCare(): iterable
    {
        foreach (['shop:42/inventory', 'a b', '%25', 'ü€😀', '...', '.a', '?x=1#y', '+&=', "it's \"it\""] as $name) {
            yield $name => [$name];
        }
    }

    /** @dataProvider namesThatAreResolved */
    #[DataProvider('namesThatAreResolved')]
    public function testNamesThatWouldReachAnotherResourceAreRefused(string $name): void
    {
        $this->expectException(\InvalidArgumentException::class);
        $this->resources()->getResource($name)->acquire('me', 30);
    }

    public static function namesThatAreResolved(): array
    {
        return [[''], ['.'], ['..']];
    }

    public function testAWrongKeyIsNoConflict(): void
    {
        $this->expectException(KeyRefused::class);
        $this->resources(key: 'wrong')->create($this->existingName())->acquire('me', 30);
    }

    public function testAResourceIsCreatedOnce(): void
    {
        $name = $this->unknownName();
        $this->resources()->createResource($name, 60);
        self::assertTrue($this->resources()->create($name, 30)->acquire('me', 5), 'create() takes what is there');
        $this->expectException(AlreadyExists::class);
        $this->resources()->createResource($name, 60);
    }

    public function testALockThatIsForgottenIsReleased(): void
    {
        $name = $this->existingName();
        $lock = $this->resources()->create($name);
        $lock->acquire('me', 600);
        unset($lock);

        self::assertFalse($this->server->isTaken($name));
    }

    public function testLocksByName(): void
    {
        $name = $this->existingName();
        $locks = new ResourceClient($this->resources());

        self::assertTrue($locks->acquire($name, 'me', 30));
        self::assertTrue($locks->isHeld($name));
        $locks->renew($name, 60);
        self::assertFalse((new ResourceClient($this->resources()))->acquire($name, 'them', 30));
        self::assertTrue($locks->release($name));
        self::assertFalse($locks->release($name));
        self::assertFalse($this->server->isTaken($name));
    }

    public function testSeveralLocksAreHadTogetherOrNotAtAll(): void
    {
        $name = $this->existingName();
        $both = $this->resources()->createAll("$name:b", "$name:a", "$name:B");
        self::assertTrue($both->acquire('me', 30));
        foreach (['a', 'b', 'B'] as $each) {
            self::assertSame('me', $this->server->owner("$name:$each"));
        }
        self::assertTrue($both->isHeld());
        self::assertTrue($both->release());

        $one = $this->resources()->create("$name:b");
        $one->acquire('them', 30);
        self::assertFalse($both->acquire('me', 30, wait: 0.3));
        self::assertFalse($this->server->isTaken("$name:a"));
        self::assertFalse($this->server->isTaken("$name:B"));
    }

    public function testWhatIsHeldAlreadyOutlivesTheWaitForTheRest(): void
    {
        $name = $this->existingName();
        $one = $this->resources()->create("$name:b");
        $one->acquire('them', 5);
        $both = $this->resources()->createAll("$name:a", "$name:b");

        self::assertTrue($both->acquire('me', 2.5, wait: 30));
        self::assertSame('me', $this->server->owner("$name:a"));
        self::assertTrue($both->isHeld());
    }

    public function testShortTimesNeverBecomeNone(): void
    {
        self::assertSame(0.001, Request::seconds(1e-6));
        self::assertSame(1.101, Request::seconds(1.1001));
        self::assertSame(1.1, Request::seconds(1.1));
        self::assertSame(0.3, Request::seconds(0.1 + 0.2));
        self::assertSame(30, Request::seconds(30.0));
        self::assertSame(0, Request::seconds(0.0));
    }

    public function testNothingThatIsDumpedShowsAKeyOrATicket(): void
    {
        $client = $this->client();
        $lock = $this->resources(key: Server::LOCK)->create($name = $this->existingName());
        $lock->acquire('me', 30);
        $ticket = $this->server->asked('GET', '/resource/'.rawurlencode($name));
        self::assertTrue($ticket['locked']);
        $dump = print_r($lock, true).print_r($client, true);

        self::assertStringContainsString($name, $dump);
        self::assertStringNotContainsString(Server::LOCK, $dump);
        self::assertDoesNotMatchRegularExpression('/[0-9a-f]{32}/', $dump);
    }
}
