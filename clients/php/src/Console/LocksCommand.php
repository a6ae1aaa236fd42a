<?php

declare(strict_types=1);

namespace SmallResource\Client\Console;

use SmallResource\Client\Client;
use SmallResource\Client\Holder;
use Symfony\Component\Console\Attribute\AsCommand;
use Symfony\Component\Console\Command\Command;
use Symfony\Component\Console\Helper\Table;
use Symfony\Component\Console\Input\InputArgument;
use Symfony\Component\Console\Input\InputInterface;
use Symfony\Component\Console\Input\InputOption;
use Symfony\Component\Console\Output\OutputInterface;

#[AsCommand(name: 'small-resource:locks', description: 'Shows who holds which lock, and how many wait')]
final class LocksCommand extends Command
{
    public function __construct(private readonly Client $client)
    {
        parent::__construct('small-resource:locks');
    }

    protected function configure(): void
    {
        $this->addArgument('prefix', InputArgument::OPTIONAL, 'of the names to show', '')
            ->addOption('all', 'a', InputOption::VALUE_NONE, 'also what nobody holds');
    }

    protected function execute(InputInterface $input, OutputInterface $output): int
    {
        $rows = [];
        foreach ($this->client->list($input->getArgument('prefix')) as $resource) {
            $holders = array_map(Holder::fromAnswer(...), $resource['holders']);
            foreach (array_filter($holders) ?: ($input->getOption('all') ? [null] : []) as $holder) {
                $rows[] = [$resource['name'], $holder?->owner, $holder?->reason, $holder?->acquiredAt, $holder?->expiresAt, $holder?->fencingToken, $resource['waiting']];
            }
        }
        if ($rows) {
            (new Table($output))->setHeaders(['Name', 'Owner', 'Reason', 'Since', 'Until', 'Token', 'Waiting'])->setRows($rows)->render();
        } else {
            $output->writeln('Nobody holds a lock.');
        }

        return self::SUCCESS;
    }
}
