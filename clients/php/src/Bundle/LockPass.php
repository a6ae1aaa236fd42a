<?php

declare(strict_types=1);

namespace SmallResource\Client\Bundle;

use SmallResource\Client\Lock\StoreFactory;
use Symfony\Component\DependencyInjection\Compiler\CompilerPassInterface;
use Symfony\Component\DependencyInjection\ContainerBuilder;
use Symfony\Component\Lock\LockFactory;
use Symfony\Component\Lock\Store\StoreFactory as SymfonyStoreFactory;

/**
 * Lets `framework.lock` take the DSN of this server. Symfony makes its stores with a static factory that cannot be
 * extended; here it is replaced by one that knows one DSN more. And makes this server the default, where asked to.
 */
final class LockPass implements CompilerPassInterface
{
    public function process(ContainerBuilder $container): void
    {
        foreach ($container->getDefinitions() as $definition) {
            if ([SymfonyStoreFactory::class, 'createStore'] === $definition->getFactory()) {
                $definition->setFactory([StoreFactory::class, 'createStore']);
            }
        }
        if ($container->hasParameter('small_resource.lock_default') && $container->getParameter('small_resource.lock_default')) {
            // Here, because the order of the bundles must not matter.
            $container->setAlias(LockFactory::class, 'small_resource.lock_factory');
            $container->setAlias('lock.factory', 'small_resource.lock_factory');
        }
    }
}
