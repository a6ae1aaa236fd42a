<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use PHPUnit\Framework\Attributes\DataProvider;
use SmallResource\Client\Bundle\SmallResourceClientBundle;
use SmallResource\Client\Bundle\SmallResourceClientExtension;
use SmallResource\Client\Client;
use SmallResource\Client\Console\LocksCommand;
use SmallResource\Client\Console\RunLockedCommand;
use SmallResource\Client\Lock\ResourceServerStore;
use SmallResource\Client\Lock\StoreFactory;
use SmallResource\Client\Renewal\Guard;
use SmallResource\Client\Tests\Fixtures\Everything;
use SmallResource\Client\Tests\Fixtures\InventorySync;
use SmallResource\Client\Tests\Fixtures\LockableCommand;
use SmallResource\Client\Tests\Support\LockTestCase;
use SmallResource\Client\Tests\Support\Server;
use SmallResource\Client\Tests\Support\TestKernel;
use Symfony\Component\Config\Definition\Exception\InvalidConfigurationException;
use Symfony\Component\Console\Tester\CommandTester;
use Symfony\Component\DependencyInjection\ContainerInterface;
use Symfony\Component\Lock\Exception\InvalidArgumentException;
use Symfony\Component\Lock\Key;
use Symfony\Component\Lock\LockFactory;
use Symfony\Component\Lock\Store\InMemoryStore;

/** The bundle in a real kernel. */
final class KernelTest extends LockTestCase
{
    private ?TestKernel $kernel = null;

    protected function setUp(): void
    {
        parent::setUp();
        $this->environment('RESOURCE_API_KEY', Server::LOCK);
        $this->environment('LOCK_DSN', str_replace('http://', 'small-resource://'.Server::LOCK.'@', $this->server->uri()).'?prefix=dsn:');
    }

    protected function tearDown(): void
    {
        $this->kernel?->shutdown();
        $this->kernel?->removeFiles();
    }

    public function testTheArticleWorksAsPrinted(): void
    {
        $container = $this->boot($this->article(), [InventorySync::class]);
        $seen = null;
        $held = $container->get(InventorySync::class)->run(function (Guard $guard) use (&$seen, $container): void {
            $guard->check();
            $seen = $this->server->owner('shop:42:inventory');
            self::assertFalse($container->get(InventorySync::class)->run(static fn () => self::fail('two at once')));
        });

        self::assertTrue($held);
        self::assertSame('sync-worker', $seen);
        self::assertFalse($this->server->isTaken('shop:42:inventory'));
        self::assertSame(SmallResourceClientBundle::class, \get_class($this->kernel->getBundle('SmallResourceClientBundle')));
    }

    public function testTheNameOfTheServerInThePublishedBundleIsAccepted(): void
    {
        $container = $this->boot(str_replace('base_uri', 'server_uri', $this->article()), [InventorySync::class]);
        self::assertTrue($container->get(InventorySync::class)->run(static fn () => null));
    }

    public function testEverythingIsAutowired(): void
    {
        $name = $this->existingName();
        $everything = $this->boot($this->article().'
  lock: { initial_ttl: 40, prefix: "'.$name.':", default: true }
  auto_renew: loop
  timeout: 5
  retry: { max_retries: 3, delay: 0.05, multiplier: 3, max_delay: 1, jitter: 0.5 }
  clock: { drift: 0.02 }
', [Everything::class])->get(Everything::class);

        self::assertSame(5.0, $everything->client->timeout);
        self::assertSame(0.02, $everything->client->drift);
        foreach ([$everything->resourceServerLockFactory, $everything->lockFactory] as $factory) {
            $lock = $factory->createLock('one');
            self::assertTrue($lock->acquire());
            self::assertTrue($this->server->isTaken("$name:one"));
            $lock->release();
        }
        self::assertTrue($everything->locks->acquire($name, 'me', 30));
        self::assertSame('me', $everything->smallResourceClient->request('GET', '/resource/'.rawurlencode($name))->toArray()['holder']['owner']);
        self::assertTrue($everything->locks->release($name));
    }

    public function testTheBundleMayBeRegisteredBeforeFrameworkBundle(): void
    {
        $everything = $this->boot($this->article()."\n  lock: { default: true }\n", [Everything::class], [])->get(Everything::class);
        $lock = $everything->lockFactory->createLock($name = $this->existingName());
        self::assertTrue($lock->acquire());
        self::assertTrue($this->server->isTaken($name));
    }

    public function testLocksOfSymfonyTakeTheDsn(): void
    {
        $factory = $this->boot("framework: { lock: '%env(LOCK_DSN)%' }\n".$this->article(), [Everything::class])->get(Everything::class)->lockFactory;
        $lock = $factory->createLock($name = $this->unknownName());
        $this->server->create("dsn:$name");

        self::assertTrue($lock->acquire());
        self::assertTrue($this->server->isTaken("dsn:$name"));
        self::assertFalse($factory->createLock($name)->acquire());
        $lock->release();
        self::assertFalse($this->server->isTaken("dsn:$name"));
    }

    public function testOtherStoresOfSymfonyStay(): void
    {
        $container = $this->boot("framework: { lock: { default: '%env(LOCK_DSN)%', local: flock } }\n".$this->article(), [Everything::class]);
        self::assertInstanceOf(LockFactory::class, $container->get(Everything::class)->lockFactory);
        self::assertInstanceOf(InMemoryStore::class, StoreFactory::createStore('in-memory'));
    }

    public function testTheDsnIsReadStrictly(): void
    {
        $store = StoreFactory::createStore('small-resource://a%2Fb@localhost?ttl=1.5&prefix=p:&max_wait=3&create=0&timeout=2');
        self::assertInstanceOf(ResourceServerStore::class, $store);
        self::assertSame('p:x', $store->name(new Key('x')));
        self::assertInstanceOf(ResourceServerStore::class, StoreFactory::createStore('small-resources://key@[::1]:443'));
        self::assertInstanceOf(ResourceServerStore::class, StoreFactory::createStore($this->client()));
        foreach (['', 'secret@', 'secret@localhost?tll=3', 'secret@localhost?ttl=0', 'secret@localhost?ttl=soon', 'secret@localhost?create=no', 'secret@localhost/path', 'secret:word@localhost', 'localhost'] as $dsn) {
            try {
                StoreFactory::createStore('small-resource://'.$dsn);
                self::fail("accepted $dsn");
            } catch (InvalidArgumentException $e) {
                self::assertStringNotContainsString('secret', $e->getMessage());
            }
        }
    }

    public function testLockableTraitOfSymfony(): void
    {
        if (!property_exists(LockableCommand::class, 'lockFactory') || !(new \ReflectionClass(LockableCommand::class))->hasProperty('lockFactory')) {
            $this->leaveOut('This version of LockableTrait makes its own store and takes no factory.');
        }
        $store = new ResourceServerStore($this->client());
        $holder = (new LockFactory($store))->createLock('app:lockable');
        $holder->acquire();
        self::assertSame(1, (new CommandTester(new LockableCommand(new LockFactory($store))))->execute([]));
        $holder->release();
        self::assertSame(0, (new CommandTester(new LockableCommand(new LockFactory($store))))->execute([]));
    }

    /** @dataProvider wrongConfigurations */
    #[DataProvider('wrongConfigurations')]
    public function testAWrongConfigurationIsRefused(string $yaml): void
    {
        $this->expectException(InvalidConfigurationException::class);
        $this->boot("small_swoole_resource_client:\n".$yaml);
    }

    public static function wrongConfigurations(): array
    {
        return array_map(static fn (string $yaml) => [$yaml], [
            'no address' => '  { api_key: k }',
            'no key' => '  { base_uri: "http://localhost" }',
            'unknown' => '  { base_uri: "http://localhost", api_key: k, ttl: 3 }',
            'renewal' => '  { base_uri: "http://localhost", api_key: k, auto_renew: signal }',
            'retry' => '  { base_uri: "http://localhost", api_key: k, retry: { jitter: 2 } }',
        ]);
    }

    public function testCommandsAndMiddlewareAreThere(): void
    {
        $container = $this->boot($this->article())->get('test.service_container');
        foreach ([LocksCommand::class, RunLockedCommand::class] as $command) {
            self::assertTrue($container->has($command) || $container->has('console.command.public_alias.'.$command), $command);
        }
    }

    public function testThePublishedBundleKeepsItsNameAndItsConfiguration(): void
    {
        $script = $this->script('
            eval("namespace Small\SwooleResourceClientBundle; final class SmallSwooleResourceClientBundle {}");
            echo "alias ", (new SmallResource\Client\Bundle\SmallResourceClientExtension())->getAlias(), "\n";
        ');
        self::assertSame(SmallResourceClientExtension::ALIAS_BESIDE_THE_PUBLISHED_BUNDLE, $script->says('alias '));
    }

    private function article(): string
    {
        return "small_swoole_resource_client:\n  base_uri: '".$this->server->uri()."'\n  api_key: '%env(RESOURCE_API_KEY)%'\n";
    }

    private function boot(string $yaml, array $services = [], ?array $before = null): ContainerInterface
    {
        $this->kernel = null === $before ? new TestKernel($yaml, $services) : new TestKernel($yaml, $services, $before);
        $this->kernel->boot();

        return $this->kernel->getContainer();
    }

    private function environment(string $name, string $value): void
    {
        $_ENV[$name] = $_SERVER[$name] = $value;
    }
}
