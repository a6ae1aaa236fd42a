<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use PHPUnit\Framework\Attributes\DataProvider;
use SmallResource\Client\Lock\ResourceServerStore;
use SmallResource\Client\Tests\Support\LockTestCase;
use SmallResource\Client\Tests\Support\Until;
use Symfony\Component\Lock\Exception\LockConflictedException;
use Symfony\Component\Lock\Exception\LockExpiredException;
use Symfony\Component\Lock\Key;
use Symfony\Component\Lock\LockFactory;
use Symfony\Component\Lock\Serializer\LockKeyNormalizer;
use Symfony\Component\Lock\Store\CombinedStore;
use Symfony\Component\Lock\Strategy\UnanimousStrategy;
use Symfony\Component\Serializer\Normalizer\NormalizerInterface;

/**
 * What Symfony expects of every store (saving, deleting, expiring, blocking, sharing), each judged by what a second
 * client sees on the server, not by what the store says of itself.
 */
final class StoreTest extends LockTestCase
{
    private function store(float $ttl = 60, ?float $maxWait = null, string $prefix = ''): ResourceServerStore
    {
        return new ResourceServerStore($this->client(), $ttl, $prefix, $maxWait);
    }

    public function testAKeyIsThereOnceItIsSavedAndGoneOnceItIsDeleted(): void
    {
        $store = $this->store();
        $key = new Key($name = $this->unknownName());

        self::assertFalse($store->exists($key));
        $store->save($key);
        self::assertTrue($store->exists($key));
        self::assertTrue($this->server->isTaken($name));
        $store->delete($key);
        self::assertFalse($store->exists($key));
        self::assertFalse($this->server->isTaken($name));
    }

    public function testKeysOfDifferentResourcesAreIndependent(): void
    {
        $store = $this->store();
        $one = new Key($this->unknownName());
        $two = new Key($this->unknownName());

        $store->save($one);
        self::assertFalse($store->exists($two));
        $store->save($two);
        self::assertTrue($this->server->isTaken((string) $one) && $this->server->isTaken((string) $two));
        $store->delete($one);
        self::assertFalse($this->server->isTaken((string) $one));
        self::assertTrue($this->server->isTaken((string) $two));
        self::assertTrue($store->exists($two));
        $store->delete($two);
    }

    public function testOneOfTwoKeysOfTheSameResourceHoldsIt(): void
    {
        $store = $this->store();
        $one = new Key($name = $this->unknownName());
        $two = new Key($name);

        $store->save($one);
        try {
            $store->save($two);
            self::fail('two keys hold the lock');
        } catch (LockConflictedException $e) {
            self::assertStringContainsString(gethostname().':'.getmypid(), $e->getMessage(), 'who holds it');
        }
        self::assertTrue($store->exists($one));
        self::assertFalse($store->exists($two));

        $store->delete($one);
        $store->save($two);
        self::assertFalse($store->exists($one));
        self::assertTrue($store->exists($two));
        $store->delete($two);
    }

    public function testSavingAgainKeepsTheLock(): void
    {
        $store = $this->store();
        $key = new Key($name = $this->unknownName());
        $store->save($key);
        $token = $store->fencingToken($key);
        $store->save($key);

        self::assertTrue($this->server->isTaken($name));
        self::assertSame($token, $store->fencingToken($key));
        $store->delete($key);
        self::assertFalse($this->server->isTaken($name));
    }

    public function testAKeyThatHoldsNothingDeletesNothing(): void
    {
        $store = $this->store();
        $one = new Key($name = $this->unknownName());
        $two = new Key($name);

        $store->save($one);
        $store->delete($two);
        self::assertTrue($store->exists($one));
        self::assertTrue($this->server->isTaken($name));
        $store->delete($one);
        $store->delete($one);
        self::assertFalse($this->server->isTaken($name));
    }

    public function testALockExpires(): void
    {
        $store = $this->store();
        $key = new Key($name = $this->unknownName());
        $store->save($key);
        $store->putOffExpiration($key, 1.5);
        self::assertTrue($store->exists($key));
        self::assertTrue($this->server->isTaken($name));

        Until::is(fn () => !$this->server->isTaken($name), 20, 'the lock to expire, which was set from 60 s to 1.5 s');
        self::assertFalse($store->exists($key));
    }

    public function testALockIsRefreshed(): void
    {
        $store = $this->store();
        $key = new Key($name = $this->unknownName());
        $store->save($key);
        $store->putOffExpiration($key, 1);
        $store->putOffExpiration($key, 30);
        usleep(1_500_000);
        self::assertTrue($store->exists($key));
        self::assertTrue($this->server->isTaken($name));
        $store->delete($key);
    }

    public function testATtlThatIsOverAtOnceIsAnErrorAndLeavesNoLock(): void
    {
        $store = $this->store();
        $key = new Key($name = $this->unknownName());
        $store->save($key);
        try {
            $store->putOffExpiration($key, 1 / 1_000_000);
            self::fail('the lock has expired');
        } catch (LockExpiredException) {
        }
        self::assertFalse($store->exists($key));
        self::assertFalse($this->server->isTaken($name));
    }

    public function testTheKeyIsToldItsLifetime(): void
    {
        $store = $this->store();
        $key = new Key($this->unknownName());
        $store->save($key);
        $store->putOffExpiration($key, 5);

        self::assertGreaterThan(0, $key->getRemainingLifetime());
        self::assertLessThanOrEqual(5, $key->getRemainingLifetime());
        $store->delete($key);
    }

    public function testAKeyThatExpiredWhileItWasSavedLeavesNoLock(): void
    {
        $store = $this->store();
        $key = new Key($name = $this->unknownName());
        $key->reduceLifetime(0);
        try {
            $store->save($key);
            self::fail('the key has expired');
        } catch (LockExpiredException) {
        }
        self::assertFalse($store->exists($key));
        self::assertFalse($this->server->isTaken($name));
    }

    public function testWhatWasForcedOffIsNotHeldAndCannotBeRefreshed(): void
    {
        $store = $this->store();
        $key = new Key($name = $this->unknownName());
        $store->save($key);
        $this->server->forceOff($name, 'wanted elsewhere');

        self::assertFalse($store->exists($key));
        try {
            $store->putOffExpiration($key, 5);
            self::fail('refreshed without the lock');
        } catch (LockConflictedException $e) {
            self::assertStringContainsString('wanted elsewhere', $e->getMessage());
        }
        $store->delete($key);
        self::assertFalse($this->server->isTaken($name));
    }

    public function testAskingWhetherItExistsDoesNotRenew(): void
    {
        $store = $this->store();
        $key = new Key($name = $this->unknownName());
        $store->save($key);
        $store->putOffExpiration($key, 1.5);
        $end = microtime(true) + 20;
        while (microtime(true) < $end && null !== $this->server->owner($name)) {
            $store->exists($key);
        }
        self::assertNull($this->server->owner($name));
    }

    public function testABlockingSaveGetsTheLockWhenItIsReleased(): void
    {
        $name = $this->unknownName();
        $other = $this->script('
            $store = new SmallResource\Client\Lock\ResourceServerStore(new SmallResource\Client\Client($uri, $key));
            $store->save($lock = new Symfony\Component\Lock\Key($name));
            echo "saved\n";
            fgets(STDIN);
            $store->delete($lock);
            echo "deleted\n";
        ', ['name' => $name]);
        $other->says('saved');
        $key = new Key($name);
        $store = $this->store();
        try {
            $store->save($key);
            self::fail('it is saved by another process');
        } catch (LockConflictedException) {
        }
        $other->tell('go on');
        $store->waitAndSave($key);
        self::assertTrue($store->exists($key));
        self::assertTrue($this->server->isTaken($name));
        $store->delete($key);
        $other->says('deleted');
    }

    public function testABlockingSaveWaitsNoLongerThanConfigured(): void
    {
        $holder = new Key($name = $this->unknownName());
        $this->store()->save($holder);
        $began = microtime(true);
        try {
            $this->store(maxWait: 0.4)->waitAndSave(new Key($name));
            self::fail('two keys hold the lock');
        } catch (LockConflictedException) {
        }
        self::assertGreaterThan(0.35, microtime(true) - $began);
        self::assertSame(0, $this->server->asked('GET', '/resource/'.rawurlencode($name))['waiting']);
        $this->store()->delete($holder);
    }

    public function testReadersShareAndKeepWritersOut(): void
    {
        $store = $this->store();
        [$reader, $another, $writer] = [new Key($name = $this->unknownName()), new Key($name), new Key($name)];

        $store->saveRead($reader);
        $store->saveRead($another);
        self::assertTrue($store->exists($reader) && $store->exists($another));
        self::assertCount(2, $this->server->asked('GET', '/resource/'.rawurlencode($name))['holders']);
        $this->assertConflict(fn () => $store->save($writer));
        $store->delete($reader);
        $this->assertConflict(fn () => $store->save($writer));
        $store->delete($another);
        $store->save($writer);
        self::assertTrue($store->exists($writer));
        $store->delete($writer);
    }

    public function testAWriterKeepsReadersOut(): void
    {
        $store = $this->store();
        [$writer, $reader] = [new Key($name = $this->unknownName()), new Key($name)];
        $store->save($writer);
        $this->assertConflict(fn () => $store->saveRead($reader));
        $store->delete($writer);
        $store->saveRead($reader);
        self::assertSame(['shared'], array_column($this->server->asked('GET', '/resource/'.rawurlencode($name))['holders'], 'mode'));
        $store->delete($reader);
    }

    public function testTheOnlyReaderMayBecomeAWriter(): void
    {
        $store = $this->store();
        [$reader, $another] = [new Key($name = $this->unknownName()), new Key($name)];
        $store->saveRead($reader);
        $store->saveRead($another);
        $this->assertConflict(fn () => $store->save($reader));
        self::assertTrue($store->exists($reader), 'a promotion that failed leaves the reader what it had');

        $store->delete($another);
        $store->save($reader);
        self::assertTrue($store->exists($reader));
        self::assertSame(['exclusive'], array_column($this->server->asked('GET', '/resource/'.rawurlencode($name))['holders'], 'mode'));
        $this->assertConflict(fn () => $store->saveRead($another));
        $store->delete($reader);
    }

    public function testAWriterMayBecomeAReader(): void
    {
        $store = $this->store();
        [$writer, $reader] = [new Key($name = $this->unknownName()), new Key($name)];
        $store->save($writer);
        $store->saveRead($writer);
        self::assertTrue($store->exists($writer));
        $store->saveRead($reader);
        self::assertCount(2, $this->server->asked('GET', '/resource/'.rawurlencode($name))['holders']);
        $store->delete($writer);
        $store->delete($reader);
        self::assertFalse($this->server->isTaken($name));
    }

    public function testABlockingReaderGetsTheLockFromAWriter(): void
    {
        $writer = new Key($name = $this->unknownName());
        $this->store()->save($writer);
        $this->store()->putOffExpiration($writer, 1);
        $reader = new Key($name);
        $this->store()->waitAndSaveRead($reader);

        self::assertSame(['shared'], array_column($this->server->asked('GET', '/resource/'.rawurlencode($name))['holders'], 'mode'));
        $this->store()->delete($reader);
    }

    /** @dataProvider keysThatAreNoNames */
    #[DataProvider('keysThatAreNoNames')]
    public function testAnyKeyHasAName(string $key): void
    {
        $store = $this->store(prefix: $prefix = 'k'.bin2hex(random_bytes(3)).':');
        $store->save($lock = new Key($key));
        self::assertTrue($store->exists($lock));
        self::assertStringStartsWith($prefix, $store->name($lock));
        self::assertTrue($this->server->isTaken($store->name($lock)));
        $store->delete($lock);
        self::assertFalse($this->server->isTaken($store->name($lock)));
    }

    public static function keysThatAreNoNames(): array
    {
        return ['empty' => [''], 'long' => [str_repeat('ü', 256)], 'control' => ["a\nb"], 'bytes' => ["\xff\xfe"], 'dots' => ['..'], 'a name' => ['shop:42/ü']];
    }

    public function testASerialisedKeyIsUsedByAnotherProcess(): void
    {
        $store = $this->store();
        $store->save($key = new Key($name = $this->unknownName()));
        $other = $this->script('
            $store = new SmallResource\Client\Lock\ResourceServerStore(new SmallResource\Client\Client($uri, $key));
            $lock = unserialize(base64_decode($serialised));
            var_dump($store->exists($lock));
            $store->putOffExpiration($lock, 20);
            $store->delete($lock);
            var_dump($store->exists($lock));
        ', ['serialised' => base64_encode(serialize($key))]);

        self::assertSame("bool(true)\nbool(false)\n", $other->ends());
        self::assertFalse($this->server->isTaken($name));
        self::assertFalse($store->exists($key));
    }

    public function testAKeyIsNormalisedForSerializers(): void
    {
        if (!interface_exists(NormalizerInterface::class) || !class_exists(LockKeyNormalizer::class)) {
            $this->leaveOut('There is no symfony/serializer, or no LockKeyNormalizer in this version of symfony/lock.');
        }
        $store = $this->store();
        $store->save($key = new Key($name = $this->unknownName()));
        $normalizer = new LockKeyNormalizer();
        $data = json_decode(json_encode($normalizer->normalize($key), \JSON_THROW_ON_ERROR), true);
        $other = $normalizer->denormalize($data, Key::class);
        self::assertTrue($this->store()->exists($other));
        $this->store()->delete($other);
        self::assertFalse($this->server->isTaken($name));
    }

    public function testAKeyFromBeforeARestartOfTheMachineIsAskedForAtTheServer(): void
    {
        $store = $this->store();
        $store->save($key = new Key($this->unknownName()));
        $serialised = str_replace(\SmallResource\Client\Deadline::bootId(), '00000000-0000-0000-0000-000000000000', serialize($key));
        $elsewhere = unserialize(preg_replace('/"deadline";d:[0-9.]+/', '"deadline";d:0.5', $serialised));

        self::assertTrue($store->exists($elsewhere));
        $store->delete($elsewhere);
        self::assertFalse($store->exists($key));
    }

    public function testLocksOfSymfony(): void
    {
        $factory = new LockFactory($this->store());
        $lock = $factory->createLock($name = $this->unknownName(), 30);
        self::assertTrue($lock->acquire());
        self::assertFalse($factory->createLock($name, 30)->acquire());
        self::assertTrue($this->server->isTaken($name));
        $lock->refresh(60);
        self::assertTrue($lock->isAcquired());
        self::assertFalse($lock->isExpired());
        self::assertGreaterThan(50, $lock->getRemainingLifetime());
        $lock->release();
        self::assertFalse($this->server->isTaken($name));

        $again = $factory->createLock($name, 30);
        self::assertTrue($again->acquireRead());
        unset($again);
        self::assertFalse($this->server->isTaken($name), 'a lock that is forgotten is released');
    }

    public function testAReleaseOfALostLockDoesNotFail(): void
    {
        $lock = (new LockFactory($this->store()))->createLock($name = $this->unknownName(), 30);
        $lock->acquire();
        $this->server->forceOff($name);
        $lock->release();
        self::assertFalse($lock->isAcquired());
    }

    public function testTwoServersAreCombined(): void
    {
        $second = Support\Server::with(['STORE' => 'memory']);
        $stores = [$this->store(), new ResourceServerStore($this->client($second->uri()))];
        $lock = (new LockFactory(new CombinedStore($stores, new UnanimousStrategy())))->createLock($name = $this->unknownName(), 30);

        self::assertTrue($lock->acquire());
        self::assertTrue($this->server->isTaken($name) && $second->isTaken($name));
        $lock->release();
        self::assertFalse($this->server->isTaken($name) || $second->isTaken($name));
    }

    private function assertConflict(\Closure $save): void
    {
        try {
            $save();
        } catch (LockConflictedException $e) {
            self::assertNotSame('', $e->getMessage());

            return;
        }
        self::fail('no conflict');
    }
}
