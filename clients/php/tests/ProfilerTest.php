<?php

declare(strict_types=1);

namespace SmallResource\Client\Tests;

use SmallResource\Client\ResourceFactory;
use SmallResource\Client\Tests\Support\LockTestCase;
use SmallResource\Client\Tests\Support\Server;
use SmallResource\Client\Tests\Support\TestKernel;
use Symfony\Bundle\FrameworkBundle\FrameworkBundle;
use Symfony\Bundle\TwigBundle\TwigBundle;
use Symfony\Bundle\WebProfilerBundle\WebProfilerBundle;
use Symfony\Component\HttpFoundation\Request;

/** What was asked of the lock server is shown in Symfony's profiler. */
final class ProfilerTest extends LockTestCase
{
    public function testThePanelShowsWhatWasAskedAndNoSecret(): void
    {
        if (!class_exists(WebProfilerBundle::class)) {
            $this->leaveOut('There is no WebProfilerBundle.');
        }
        $kernel = new TestKernel($this->configuration(), [], [FrameworkBundle::class, TwigBundle::class, WebProfilerBundle::class], ['test.resources' => ResourceFactory::class]);
        try {
            $kernel->boot();
            $resources = $kernel->getContainer()->get('test.resources');
            $name = $this->existingName().'<b>';
            $lock = $resources->create($name);
            self::assertTrue($lock->acquire('me', 30));
            self::assertFalse($resources->create($name)->acquire('other', 30));
            $lock->write('stock', 1);
            $lock->release();

            $response = $kernel->handle($request = Request::create('/nothing'));
            $token = $response->headers->get('X-Debug-Token');
            self::assertNotNull($token);
            $kernel->terminate($request, $response);

            $panel = $kernel->handle(Request::create("/_profiler/$token?panel=small_resource"))->getContent();
            preg_match('~<h2>Locks</h2>.*?</table>~s', $panel, $table);
            $text = preg_replace('/\s+/', ' ', strip_tags(str_replace('</td>', ' ', $table[0] ?? $panel)));
            $shown = htmlspecialchars($name);
            foreach (['lock held', 'lock locked', 'write stock done', 'unlock done'] as $line) {
                self::assertStringContainsString($shown.' '.$line, $text);
            }
            $stored = implode('', array_map(static fn (string $file) => @gzdecode(file_get_contents($file)) ?: file_get_contents($file), glob($kernel->getCacheDir().'/profiler/*/*/*') ?: []));
            self::assertStringContainsString('LockDataCollector', $stored);
            self::assertStringNotContainsString(Server::WRITE, $panel.$stored);
            self::assertDoesNotMatchRegularExpression('/"[0-9a-f]{32}"/', $stored);

            $toolbar = $kernel->handle(Request::create("/_wdt/$token"))->getContent();
            self::assertStringContainsString('sf-toolbar-block-small_resource', $toolbar);
        } finally {
            $kernel->removeFiles();
        }
    }

    private function configuration(): string
    {
        $routes = sys_get_temp_dir().'/srs-php-routes-'.getmypid().'.yaml';
        $folder = \dirname((new \ReflectionClass(WebProfilerBundle::class))->getFileName()).'/Resources/config/routing';
        $kind = is_file("$folder/profiler.php") ? 'php' : 'xml';
        file_put_contents($routes, "profiler: { resource: '$folder/profiler.$kind', prefix: /_profiler }\nwdt: { resource: '$folder/wdt.$kind', prefix: /_wdt }\n");
        register_shutdown_function(static fn () => @unlink($routes));

        return <<<YAML
            framework:
              router: { resource: '$routes', utf8: true }
              profiler: { collect: true }
            web_profiler: { toolbar: true }
            small_swoole_resource_client: { base_uri: '{$this->server->uri()}', api_key: key-write }
            YAML;
    }
}
