<?php

declare(strict_types=1);

namespace SmallResource\Client\Bundle;

use SmallResource\Client\Client;
use SmallResource\Client\Console\LocksCommand;
use SmallResource\Client\Console\RunLockedCommand;
use SmallResource\Client\Lock\ResourceServerStore;
use SmallResource\Client\Messenger\LockMiddleware;
use SmallResource\Client\Renewal\GuardFactory;
use SmallResource\Client\ResourceClient;
use SmallResource\Client\ResourceFactory;
use SmallResource\Client\Retry;
use Symfony\Component\Console\Command\Command;
use Symfony\Component\DependencyInjection\ContainerBuilder;
use Symfony\Component\DependencyInjection\ContainerInterface;
use Symfony\Component\DependencyInjection\Definition;
use Symfony\Component\DependencyInjection\Extension\Extension;
use Symfony\Component\DependencyInjection\Reference;
use Symfony\Component\HttpClient\HttpClient;
use Symfony\Component\HttpClient\ScopingHttpClient;
use Symfony\Component\HttpKernel\DataCollector\DataCollector;
use Symfony\Component\Lock\LockFactory;
use Symfony\Component\Lock\PersistingStoreInterface;
use Symfony\Component\Messenger\Middleware\MiddlewareInterface;
use Symfony\Contracts\HttpClient\HttpClientInterface;

final class SmallResourceClientExtension extends Extension
{
    public const ALIAS = 'small_swoole_resource_client';
    public const ALIAS_BESIDE_THE_PUBLISHED_BUNDLE = 'small_resource_client';
    private const ANNOUNCED = 'Small\SwooleResourceClientBundle\SmallSwooleResourceClientBundle';

    /** The key of the configuration: the published bundle, where it is installed, has the same one and keeps it. */
    public function getAlias(): string
    {
        return class_exists(self::ANNOUNCED) && !is_a(self::ANNOUNCED, SmallResourceClientBundle::class, true) ? self::ALIAS_BESIDE_THE_PUBLISHED_BUNDLE : self::ALIAS;
    }

    public function getConfiguration(array $config, ContainerBuilder $container): Configuration
    {
        return new Configuration($this->getAlias());
    }

    public function load(array $configs, ContainerBuilder $container): void
    {
        $config = $this->processConfiguration($this->getConfiguration($configs, $container), $configs);
        $logger = new Reference('logger', ContainerInterface::NULL_ON_INVALID_REFERENCE);

        $this->addHttpClient($config, $container);
        $container->setDefinition('small_resource.retry', new Definition(Retry::class, array_values($config['retry'])));
        $container->setDefinition(Client::class, (new Definition(Client::class, [
            $config['base_uri'], $config['api_key'], new Reference('small_resource.client'), $config['timeout'],
            new Reference('small_resource.retry'), $logger, $config['clock']['drift'],
        ]))->addTag('monolog.logger', ['channel' => 'lock']));
        if ($container->getParameter('kernel.debug') && class_exists(DataCollector::class)) {
            $container->setDefinition(LockDataCollector::class, (new Definition(LockDataCollector::class))
                ->addTag('data_collector', ['id' => 'small_resource', 'template' => '@SmallResourceClient/profiler.html.twig']));
            $container->getDefinition(Client::class)->setArgument('$observer', [new Reference(LockDataCollector::class), 'note']);
        }
        $container->setDefinition('small_resource.guards', new Definition(GuardFactory::class, [$config['auto_renew']]));
        $container->setDefinition(ResourceFactory::class, new Definition(ResourceFactory::class, [
            new Reference(Client::class), new Reference('small_resource.guards'), $config['lock']['create'],
        ]));
        $container->setDefinition(ResourceClient::class, new Definition(ResourceClient::class, [new Reference(ResourceFactory::class)]));
        if (interface_exists(PersistingStoreInterface::class)) {
            $this->addLock($config['lock'], $container);
        }
        if (interface_exists(MiddlewareInterface::class)) {
            $container->setDefinition(LockMiddleware::class, new Definition(LockMiddleware::class, [new Reference(ResourceFactory::class)]));
        }
        if (class_exists(Command::class)) {
            $container->setDefinition(LocksCommand::class, (new Definition(LocksCommand::class, [new Reference(Client::class)]))->addTag('console.command', ['command' => 'small-resource:locks']));
            $container->setDefinition(RunLockedCommand::class, (new Definition(RunLockedCommand::class, [new Reference(ResourceFactory::class)]))->addTag('console.command', ['command' => 'small-resource:run']));
        }
    }

    /** Not seen by the profiler, which would keep key and tickets. */
    private function addHttpClient(array $config, ContainerBuilder $container): void
    {
        $transport = (new Definition(HttpClientInterface::class))->setFactory([HttpClient::class, 'create']);
        $container->setDefinition('small_resource.client', (new Definition(HttpClientInterface::class))
            ->setFactory([ScopingHttpClient::class, 'forBaseUri'])
            ->setArguments([$transport, $config['base_uri'], ['headers' => ['x-api-key' => $config['api_key']], 'timeout' => $config['timeout']]]));
        $container->registerAliasForArgument('small_resource.client', HttpClientInterface::class, 'small_resource.client');
    }

    private function addLock(array $config, ContainerBuilder $container): void
    {
        $container->setDefinition(ResourceServerStore::class, new Definition(ResourceServerStore::class, [
            new Reference(Client::class), $config['initial_ttl'], $config['prefix'], $config['max_wait'], $config['create'],
        ]));
        $container->setDefinition('small_resource.lock_factory', (new Definition(LockFactory::class, [new Reference(ResourceServerStore::class)]))
            ->addMethodCall('setLogger', [new Reference('logger', ContainerInterface::IGNORE_ON_INVALID_REFERENCE)])
            ->addTag('monolog.logger', ['channel' => 'lock']));
        $container->registerAliasForArgument('small_resource.lock_factory', LockFactory::class, 'resource_server.lock.factory');
        $container->setParameter('small_resource.lock_default', $config['default']);
    }
}
