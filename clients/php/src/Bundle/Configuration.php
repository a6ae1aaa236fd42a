<?php

declare(strict_types=1);

namespace SmallResource\Client\Bundle;

use SmallResource\Client\Renewal\GuardFactory;
use Symfony\Component\Config\Definition\Builder\ArrayNodeDefinition;
use Symfony\Component\Config\Definition\Builder\TreeBuilder;
use Symfony\Component\Config\Definition\ConfigurationInterface;

final class Configuration implements ConfigurationInterface
{
    /** @param string $alias the key of the configuration */
    public function __construct(private readonly string $alias)
    {
    }

    public function getConfigTreeBuilder(): TreeBuilder
    {
        $tree = new TreeBuilder($this->alias);
        $root = $tree->getRootNode();
        \assert($root instanceof ArrayNodeDefinition);
        $root
            ->beforeNormalization()
                ->ifTrue(static fn ($config) => \is_array($config) && isset($config['server_uri']))
                ->then(static function (array $config): array {
                    // As the bundle published before calls it.
                    $config['base_uri'] ??= $config['server_uri'];
                    unset($config['server_uri']);

                    return $config;
                })
            ->end()
            ->children()
                ->scalarNode('base_uri')->info('Address of the server, such as http://localhost:9501.')->isRequired()->cannotBeEmpty()->end()
                ->scalarNode('api_key')->info('A key that may lock; one that may write is needed to write documents.')->isRequired()->cannotBeEmpty()->end()
                ->floatNode('timeout')->info('Seconds that one answer may take, besides the time a lock is waited for.')->defaultValue(10.0)->min(0.001)->end()
                ->enumNode('auto_renew')->info('What renews: auto is the event loop where one runs, else a process beside this one.')->values(GuardFactory::KINDS)->defaultValue(GuardFactory::AUTO)->end()
            ->end();
        $this->addRetry($root);
        $this->addLock($root);

        return $tree;
    }

    private function addRetry(ArrayNodeDefinition $root): void
    {
        $root->children()
            ->arrayNode('retry')->addDefaultsIfNotSet()->children()
                ->integerNode('max_retries')->info('Of one request.')->defaultValue(30)->min(0)->end()
                ->floatNode('delay')->info('Seconds before the first one.')->defaultValue(0.1)->min(0)->end()
                ->floatNode('multiplier')->defaultValue(2.0)->min(1)->end()
                ->floatNode('max_delay')->defaultValue(5.0)->min(0)->end()
                ->floatNode('jitter')->info('The random share of a delay.')->defaultValue(1.0)->min(0)->max(1)->end()
            ->end()->end()
            ->arrayNode('clock')->addDefaultsIfNotSet()->children()
                ->floatNode('drift')->info('Share by which the clocks of client and server may run apart.')->defaultValue(0.01)->min(0)->max(0.5)->end()
            ->end()->end()
        ->end();
    }

    private function addLock(ArrayNodeDefinition $root): void
    {
        $root->children()
            ->arrayNode('lock')->info('For symfony/lock; "create" for every lock.')->addDefaultsIfNotSet()->children()
                ->floatNode('initial_ttl')->info('Seconds that a lock without a ttl of its own is held for.')->defaultValue(300.0)->min(0.001)->end()
                ->scalarNode('prefix')->info('Of the names on the server.')->defaultValue('')->end()
                ->floatNode('max_wait')->info('Seconds that a blocking acquire waits at most; null: for ever.')->defaultNull()->end()
                ->booleanNode('create')->info('Names that do not exist are made while somebody holds or waits for them.')->defaultTrue()->end()
                ->booleanNode('default')->info('Autowire LockFactory with this server, in place of framework.lock.')->defaultFalse()->end()
            ->end()->end()
        ->end();
    }
}
