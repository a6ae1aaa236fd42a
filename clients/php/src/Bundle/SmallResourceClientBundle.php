<?php

declare(strict_types=1);

namespace SmallResource\Client\Bundle;

use Symfony\Component\DependencyInjection\ContainerBuilder;
use Symfony\Component\DependencyInjection\Extension\ExtensionInterface;
use Symfony\Component\HttpKernel\Bundle\Bundle;

/** Also known as Small\SwooleResourceClientBundle\SmallSwooleResourceClientBundle. */
final class SmallResourceClientBundle extends Bundle
{
    public function getPath(): string
    {
        return \dirname(__DIR__, 2);
    }

    public function getContainerExtension(): ?ExtensionInterface
    {
        return $this->extension ??= new SmallResourceClientExtension();
    }

    public function build(ContainerBuilder $container): void
    {
        parent::build($container);
        $container->addCompilerPass(new LockPass());
    }
}
