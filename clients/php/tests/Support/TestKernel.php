<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests\Support;

use Psr\Log\NullLogger;
use Symfony\Bundle\FrameworkBundle\FrameworkBundle;
use Symfony\Component\Config\Loader\LoaderInterface;
use Symfony\Component\DependencyInjection\ContainerBuilder;
use Symfony\Component\Filesystem\Filesystem;
use Symfony\Component\HttpKernel\Kernel;
use Symfony\Component\Yaml\Yaml;

/** An application with some configuration in YAML and some services that are public and autowired. */
final class TestKernel extends Kernel
{
    /** @param list<class-string> $services */
    public function __construct(private readonly string $yaml, private readonly array $services = [], private readonly array $before = [FrameworkBundle::class], private readonly array $aliases = [])
    {
        parent::__construct('test', true);
    }

    public function registerBundles(): iterable
    {
        // By the name that the article prints.
        $bundles = [...$this->before, 'Small\SwooleResourceClientBundle\SmallSwooleResourceClientBundle'];
        foreach (array_unique([...$bundles, FrameworkBundle::class]) as $class) {
            yield new $class();
        }
    }

    public function getProjectDir(): string
    {
        return sys_get_temp_dir().'/srs-php-kernel-'.md5($this->yaml.serialize($this->services).serialize($this->before).getmypid());
    }

    public function getCacheDir(): string
    {
        return $this->getProjectDir().'/cache';
    }

    public function getLogDir(): string
    {
        return $this->getProjectDir().'/log';
    }

    public function removeFiles(): void
    {
        (new Filesystem())->remove($this->getProjectDir());
    }

    public function registerContainerConfiguration(LoaderInterface $loader): void
    {
        $loader->load(function (ContainerBuilder $container): void {
            foreach (array_replace_recursive([
                'framework' => ['secret' => 's', 'test' => true, 'http_method_override' => false] + (self::MAJOR_VERSION < 7 ? ['annotations' => false] : []),
            ], Yaml::parse($this->yaml)) as $extension => $configuration) {
                $container->loadFromExtension($extension, $configuration);
            }
            $container->register('logger', NullLogger::class);
            foreach ($this->aliases as $public => $service) {
                $container->setAlias($public, $service)->setPublic(true);
            }
            foreach ($this->services as $service) {
                $container->register($service)->setAutowired(true)->setAutoconfigured(true)->setPublic(true);
            }
        });
    }
}
