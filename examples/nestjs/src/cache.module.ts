/** How does an application get the service? `CacheModule.forRoot(options)`, once. */

import { Module, type DynamicModule, type FactoryProvider } from '@nestjs/common';

import { CacheService } from './cache.service';
import { CACHE_OPTIONS, type CacheOptions } from './options';

@Module({})
export class CacheModule {
  static forRoot(options: CacheOptions): DynamicModule {
    return moduleWith({ provide: CACHE_OPTIONS, useFactory: () => options });
  }

  /** Where the options come from a ConfigService. */
  static forRootAsync(from: Pick<FactoryProvider<CacheOptions>, 'useFactory' | 'inject'>) {
    return moduleWith({ provide: CACHE_OPTIONS, ...from });
  }
}

function moduleWith(options: FactoryProvider<CacheOptions>): DynamicModule {
  return {
    module: CacheModule,
    global: true,
    providers: [options, CacheService],
    exports: [CacheService],
  };
}
